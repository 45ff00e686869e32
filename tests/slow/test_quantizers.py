"""Quantizers on every matrix of a real encoder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import kronpress
from kronpress.layers import Coded, Grid
from kronpress.quantizers import BinaryWeights, LeastSquares, LossAware, MaxAbs, MinMax, TernaryWeights

pytestmark = pytest.mark.slow


def matrices() -> Iterator[tuple[str, torch.Tensor]]:
    model = kronpress.load("bundled:minilm-l6")
    return ((name, weight.detach()) for name, weight in model.named_parameters() if weight.dim() == 2)


def error(coded: Coded, grid: Grid, weight: torch.Tensor, importance: torch.Tensor) -> float:
    squares = (grid.values(*coded).view(weight.shape) - weight).square()
    return float((squares * importance).sum(dtype=torch.float64))


@pytest.mark.parametrize("group", ["tensor", "row"])
def test_the_loss_aware_one_beats_the_plain_one(group: str) -> None:
    generator, count = torch.Generator().manual_seed(0), 0
    for name, weight in matrices():
        rows = torch.randn(len(weight), 1, generator=generator).exp()  # as tokens, or neurons, count unequally
        importance = rows * torch.randn(weight.shape, generator=generator).exp()
        for plain in (BinaryWeights(), TernaryWeights()):
            levels = plain.symmetric[0]  # float16 can round to the same scale where one is for all
            grid = Grid.model_validate({"levels": levels, "group": group, "scale": "float32"})
            blind = error(plain.coded(weight, grid), grid, weight, importance)
            aware = error(LossAware().coded(weight, grid, importance=importance), grid, weight, importance)
            assert aware < blind, (name, plain.kind)
            count += 1
    assert count >= 2 * 36


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_least_squares_beat_what_reaches_all_numbers(bits: int) -> None:
    for name, weight in matrices():
        ones = torch.ones(())
        for plain, shift in ((MaxAbs(), False), (MinMax(), True)):
            grid = plain.grid(bits, group=64, shift=shift)
            found = error(LeastSquares().coded(weight, grid), grid, weight, ones)
            assert found < error(plain.coded(weight, grid), grid, weight, ones), (name, plain.kind)
