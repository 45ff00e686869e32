from __future__ import annotations

import pytest
import torch

from kronpress.layers import Coded, Grid
from kronpress.layers.grid import Levels
from kronpress.quantizers import LeastSquares, MaxAbs, MinMax, nearest

ONE_ROW = torch.randn(1, 200, generator=torch.Generator().manual_seed(0))


def rounded(scale: torch.Tensor, grid: Grid) -> Coded:
    return Coded(grid.codes(ONE_ROW[:, None], scale), scale)


def error(coded: Coded, grid: Grid, weight: torch.Tensor, importance: torch.Tensor | None = None) -> float:
    squares = (grid.values(*coded).view(weight.shape) - weight).square()
    return float((squares if importance is None else squares * importance).sum())


@pytest.mark.parametrize("scale", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("group", ["tensor", "row", 16])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_it_beats_what_reaches_all_numbers(bits: int, group: str, scale: str) -> None:
    for seed, (plain, shift) in enumerate([(MaxAbs(), False), (MinMax(), True)]):
        grid = Grid.model_validate(plain.grid(bits).model_dump() | {"group": group, "scale": scale})
        weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(seed)) + shift
        found = error(LeastSquares().coded(weight, grid), grid, weight)
        limit = error(plain.coded(weight, grid), grid, weight)
        assert found < limit or (found == limit and bits == 8)  # of 256 levels hardly one can be spared


@pytest.mark.parametrize("levels", ["binary", "ternary", "int2", "raised2", "int3", "int4", "int8"])
def test_no_scale_on_a_fine_scan_is_much_better(levels: Levels) -> None:
    grid = Grid(levels=levels, group="row", scale="float32")
    found = error(LeastSquares().coded(ONE_ROW, grid), grid, ONE_ROW)
    scan = torch.linspace(0.005, 3, 600).tolist()
    best = min(error(rounded(torch.full((1, 1, 1), scale), grid), grid, ONE_ROW) for scale in scan)
    assert found <= best * 1.03


def test_two_levels_with_a_shift_are_two_means() -> None:
    grid = Grid(levels="zero_one", group="row", shift=True, scale="float32")
    values = grid.values(*LeastSquares(iterations=50).coded(ONE_ROW, grid)).flatten()
    for level in values.unique():
        torch.testing.assert_close(ONE_ROW.flatten()[values == level].mean(), level)


@pytest.mark.parametrize("shift", [False, True])
def test_weights_of_columns_count(shift: bool) -> None:
    grid = Grid(levels="uint3" if shift else "int3", group="row", shift=shift)
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        weight, columns = torch.randn(8, 64, generator=generator), torch.randn(64, generator=generator).mul(2).exp()
        aware = LeastSquares().coded(weight, grid, importance=columns)
        assert error(aware, grid, weight, columns) < error(LeastSquares().coded(weight, grid), grid, weight, columns)


def test_in_training_it_keeps_the_scale_and_passes_gradients_where_the_grid_reaches() -> None:
    grid = Grid(levels="int3", group="tensor")
    latent = torch.tensor([[[0.4, -1.2, 30.0]]], requires_grad=True)
    start = Coded(torch.zeros(1, 1, 3, dtype=torch.int32), torch.full((1, 1, 1), 0.5))
    learned = LeastSquares().begin(latent, grid, start)
    values = LeastSquares().value(latent, grid, learned)
    values.sum().backward()
    assert values.tolist() == [[[0.5, -1.0, 1.5]]]
    assert latent.grad is not None
    assert latent.grad.tolist() == [[[1.0, 1.0, 0.0]]]


def test_narrow_levels_are_symmetric() -> None:
    grid = Grid(levels="int2", group="row")
    assert int(nearest(ONE_ROW[:, None], grid, narrow=True).codes.min()) == 1
    assert int(nearest(ONE_ROW[:, None], grid).codes.min()) == 0
