from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from kronpress.layers import Coded, Grid
from kronpress.layers.grid import Levels
from kronpress.quantizers import BinaryWeights, LossAware, MaxAbs, Quantizer, TernaryWeights


def problem(seed: int, *shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers and positive weights of them that differ by orders of magnitude."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator), torch.randn(*shape, generator=generator).exp()


def error(coded: Coded, grid: Grid, weight: torch.Tensor, importance: torch.Tensor) -> float:
    return float((importance * (grid.values(*coded).view(weight.shape) - weight).square()).sum())


def test_two_levels_have_the_closed_form_of_lab() -> None:
    grid = Grid(levels="binary", group="row", scale="float32")
    weight, importance = problem(0, 5, 16)
    coded = LossAware().coded(weight, grid, importance=importance)
    expected = [
        sum(d * abs(w) for d, w in zip(ds, ws, strict=True)) / sum(ds)
        for ds, ws in zip(importance.tolist(), weight.tolist(), strict=True)
    ]
    torch.testing.assert_close(coded.scale.flatten(), torch.tensor(expected))
    assert torch.equal(coded.codes.view(5, 16), (weight > 0).int())


@pytest.mark.parametrize("levels", ["ternary", "int3", "int4", "int8"])
def test_scale_and_codes_are_optimal_for_one_another(levels: Levels) -> None:
    grid = Grid(levels=levels, group="row", scale="float32")
    weight, importance = problem(1, 8, 64)
    coded = LossAware(iterations=200).coded(weight, grid, importance=importance)
    highest = grid.numbers[-1]
    b = (coded.codes[:, 0] + grid.lowest).float()
    scale = (importance * b * weight).sum(1) / (importance * b * b).sum(1)
    torch.testing.assert_close(coded.scale.flatten(), scale)
    assert torch.equal(b, (weight / coded.scale[:, 0]).round().clamp(-highest, highest))
    assert b.min() >= -highest


def test_three_levels_are_nearly_the_best_of_all() -> None:
    grid = Grid(levels="ternary", group="row", scale="float32")
    for seed in range(20):
        weight, importance = problem(seed, 1, 24)
        found = error(LossAware().coded(weight, grid, importance=importance), grid, weight, importance)
        best = float("inf")
        for threshold in weight.abs().flatten().tolist():  # with any scale, the kept ones are the largest
            kept = weight.abs() >= threshold
            scale = (importance * weight.abs() * kept).sum() / (importance * kept).sum()
            best = min(best, float((importance * (weight.sign() * kept * scale - weight).square()).sum()))
        assert best * 0.9999 <= found <= best * 1.25


PLAIN: Sequence[tuple[Quantizer, Levels]] = [
    (BinaryWeights(), "binary"),
    (TernaryWeights(), "ternary"),
    (MaxAbs(), "int3"),
    (MaxAbs(), "int4"),
    (MaxAbs(), "int8"),
]


@pytest.mark.parametrize(("plain", "levels"), PLAIN, ids=repr)
@pytest.mark.parametrize("group", ["tensor", "row", 16])
def test_it_beats_the_plain_one_in_weighted_error(plain: Quantizer, levels: Levels, group: str) -> None:
    grid = Grid.model_validate({"levels": levels, "group": group})
    for seed in range(10):
        weight, importance = problem(seed, 8, 64)
        aware = error(LossAware().coded(weight, grid, importance=importance), grid, weight, importance)
        blind = error(LossAware().coded(weight, grid), grid, weight, importance)
        limit = min(blind, error(plain.coded(weight, grid), grid, weight, importance))
        assert aware < limit or (aware == limit and levels == "int8")  # of 256 levels hardly one can be spared


def test_in_training_it_reads_the_importance_that_it_has() -> None:
    grid = Grid(levels="ternary", group="row")
    weight, importance = problem(3, 4, 32)
    groups, weights = grid.groups(weight), grid.groups(importance)
    rule = LossAware()
    learned = rule.begin(groups, grid, None)
    assert torch.equal(learned["importance"], torch.ones_like(groups))
    assert torch.equal(rule.code(groups, grid, learned).codes, rule.coded(weight, grid).codes)
    aware = rule.code(groups, grid, learned | {"importance": weights})
    assert torch.equal(aware.codes, rule.coded(weight, grid, importance=importance).codes)
    assert not torch.equal(aware.scale, rule.code(groups, grid, learned).scale)


def test_importance_counts_up_to_a_factor_and_may_be_zero() -> None:
    grid = Grid(levels="ternary", group="row")
    weight, importance = problem(4, 4, 32)
    coded = LossAware().coded(weight, grid, importance=importance)
    tiny = LossAware().coded(weight, grid, importance=importance * 2.0**-80)
    assert torch.equal(coded.codes, tiny.codes)
    nothing = LossAware().coded(weight, grid, importance=torch.zeros(32))
    assert torch.equal(nothing.codes, LossAware().coded(weight, grid).codes)


def test_gradients_pass_everywhere() -> None:
    grid = Grid(levels="ternary", group="tensor")
    latent = torch.tensor([[[0.1, -2.4, 25.0]]], requires_grad=True)
    LossAware().value(latent, grid, LossAware().begin(latent, grid, None)).sum().backward()
    assert latent.grad is not None
    assert latent.grad.tolist() == [[[1.0, 1.0, 1.0]]]
