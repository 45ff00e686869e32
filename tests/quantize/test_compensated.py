from __future__ import annotations

import pytest
import torch

from kronpress.layers import GGUF_GRIDS, Coded, Grid
from kronpress.quantize import compensated
from kronpress.quantizers import nearest

CASES = [
    Grid(levels="int4"),
    Grid(levels="int3", group=16),
    Grid(levels="uint2", group=16, shift=True),
    Grid(levels="ternary", group="tensor"),
    Grid(levels="binary", group=8),
    GGUF_GRIDS["q2_0"].model_copy(update={"group": 16}),
]


def a_problem(rows: int = 24, columns: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """A matrix, and the second moment of inputs that hang together."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(columns, columns, generator=generator) * torch.rand(columns, generator=generator).pow(2)
    inputs = torch.randn(500, columns, generator=generator) @ mixing
    return torch.randn(rows, columns, generator=generator), (inputs.T @ inputs / len(inputs)).double()


def output_error(weight: torch.Tensor, coded: Coded, *, grid: Grid, moment: torch.Tensor) -> float:
    missing = (weight - grid.values(*coded).reshape(weight.shape)).double()
    return float(torch.linalg.vecdot(missing @ moment, missing).sum())


@pytest.mark.parametrize("grid", CASES, ids=repr)
def test_outputs_are_nearer_than_those_of_the_nearest_numbers(grid: Grid) -> None:
    weight, moment = a_problem()
    plain = output_error(weight, nearest(grid.groups(weight), grid), grid=grid, moment=moment)
    errors = [
        output_error(weight, compensated(weight, grid, moment, rounds=rounds, ridge=1e-4), grid=grid, moment=moment)
        for rounds in (0, 1, 3)
    ]
    assert errors[0] < 0.8 * plain
    assert errors[0] >= errors[1] >= errors[2]


@pytest.mark.parametrize("grid", [Grid(levels="binary", group=8), Grid(levels="int2", group=8)], ids=repr)
def test_no_scale_is_negative(grid: Grid) -> None:
    """Quantizers that learn scales know none below zero."""
    weight, moment = a_problem(rows=512, columns=64)
    scale = compensated(weight, grid, moment, rounds=3, ridge=1e-4).scale
    assert (scale > 0).all()


@pytest.mark.parametrize("grid", CASES, ids=repr)
def test_numbers_on_the_grid_stay(grid: Grid) -> None:
    weight, moment = a_problem()
    coded = nearest(grid.groups(weight), grid)
    on_grid = grid.values(*coded).reshape(weight.shape)
    again = compensated(on_grid, grid, moment, rounds=2, ridge=1e-4)
    torch.testing.assert_close(grid.values(*again).reshape(weight.shape), on_grid, rtol=1e-3, atol=1e-3)


def test_independent_inputs_of_one_size_need_no_compensation() -> None:
    weight, _ = a_problem()
    grid, moment = Grid(levels="int4"), torch.eye(weight.shape[1], dtype=torch.float64)
    plain = output_error(weight, nearest(grid.groups(weight), grid), grid=grid, moment=moment)
    ours = output_error(weight, compensated(weight, grid, moment, rounds=2, ridge=1e-6), grid=grid, moment=moment)
    assert ours <= plain * 1.0001
    assert ours >= 0.95 * plain


def test_scales_are_as_the_grid_stores_them() -> None:
    weight, moment = a_problem()
    grid = Grid(levels="uint2", group=8, shift=True, scale="bfloat16")
    coded = compensated(weight, grid, moment, rounds=2, ridge=1e-4)
    assert coded.shift is not None
    assert torch.equal(coded.scale, grid.rounded(coded.scale))
    assert torch.equal(coded.shift, grid.rounded(coded.shift))


def test_inputs_that_never_occur_do_no_harm() -> None:
    weight, moment = a_problem()
    moment[3] = moment[:, 3] = 0
    grid = Grid(levels="int3")
    plain = output_error(weight, nearest(grid.groups(weight), grid), grid=grid, moment=moment)
    coded = compensated(weight, grid, moment, rounds=1, ridge=1e-2)
    assert coded.scale.isfinite().all()
    assert output_error(weight, coded, grid=grid, moment=moment) < plain
