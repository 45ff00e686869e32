"""Quantizers on every matrix of a real encoder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import kronpress
from kronpress.layers import Coded, Grid
from kronpress.quantizers import BinaryWeights, LeastSquares, LossAware, MaxAbs, MinMax, TernaryWeights

pytestmark = pytest.mark.slow


def matrices() -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """Go through names, weights, and what Adam's second moment is the square of after a step on random tokens."""
    model, generator = kronpress.load("bundled:minilm-l6"), torch.Generator().manual_seed(0)
    ids = torch.randint(model.config.vocab_size, (8, 64), generator=generator)
    states = model(ids).last_hidden_state
    (states * torch.randn(states.shape, generator=generator)).sum().backward()
    for name, weight in model.named_parameters():
        if weight.dim() == 2 and weight.grad is not None:
            yield name, weight.detach(), weight.grad.abs() + 1e-8


def error(coded: Coded, grid: Grid, weight: torch.Tensor, importance: torch.Tensor) -> float:
    squares = (grid.values(*coded).view(weight.shape) - weight).square()
    return float((squares * importance).sum(dtype=torch.float64))


@pytest.mark.parametrize("group", ["tensor", "row"])
def test_the_loss_aware_one_beats_the_plain_one(group: str) -> None:
    count = 0
    for name, weight, importance in matrices():
        for plain in (BinaryWeights(), TernaryWeights()):
            grid = Grid.model_validate({"levels": plain.symmetric[0], "group": group})
            blind = error(plain.coded(weight, grid), grid, weight, importance)
            aware = error(LossAware().coded(weight, grid, importance=importance), grid, weight, importance)
            assert aware < blind, (name, plain.kind)
            count += 1
    assert count >= 2 * 36


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_least_squares_beat_what_reaches_all_numbers(bits: int) -> None:
    ones = torch.ones(())
    for name, weight, _ in matrices():
        for plain, shift in ((MaxAbs(), False), (MinMax(), True)):
            grid = plain.grid(bits, group=64, shift=shift)
            found = error(LeastSquares().coded(weight, grid), grid, weight, ones)
            assert found < error(plain.coded(weight, grid), grid, weight, ones), (name, plain.kind)
