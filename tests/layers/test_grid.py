from __future__ import annotations

import pytest
import torch

from kronpress.errors import KronpressError
from kronpress.layers import GGUF_GRIDS, LEVELS, Grid, TensorFormat, TensorSpec

SHAPES = [(6, 8), (2, 3, 8), (5, 4)]


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("group", ["tensor", "row", 4])
def test_numbers_on_the_grid_are_stored_exactly(levels: str, shift: bool, group: str | int) -> None:
    grid, generator = Grid.model_validate({"levels": levels, "shift": shift, "group": group}), torch.Generator()
    for shape in SHAPES:
        scale = grid.rounded(torch.rand(grid.scales(shape), generator=generator) + 0.5)[..., None]
        offset = grid.rounded(torch.randn(grid.scales(shape), generator=generator))[..., None] if shift else None
        wanted = torch.randint(grid.base, (*scale.shape[:2], *grid.groups(torch.empty(shape)).shape[2:]))
        values = grid.values(wanted, scale, offset).view(shape)
        codes = grid.codes(grid.groups(values), scale, offset)
        packed = grid.pack(codes)
        assert torch.equal(codes, wanted)
        assert torch.equal(grid.unpack(packed, shape=shape).flatten().int(), wanted.flatten().int())
        stored_scale, stored_shift = scale[..., 0].half(), None if offset is None else offset[..., 0].half()
        torch.testing.assert_close(grid.read(packed, stored_scale, stored_shift, shape=shape), values)


@pytest.mark.parametrize("name", GGUF_GRIDS)
def test_the_bytes_of_a_spec_are_those_of_its_parts(name: str) -> None:
    tensor = TensorSpec((3, 256), GGUF_GRIDS[name])
    parts = tensor.parts.values()
    assert tensor.bytes(TensorFormat("float32", 32)) == sum(part.bytes(TensorFormat("float32", 32)) for part in parts)
    assert tensor.parameters == 768


@pytest.mark.parametrize(("name", "bits"), [("q8_0", 8.5), ("q4_0", 4.5), ("q4_1", 5), ("q2_0", 2.25), ("q1_0", 1.125)])
def test_bits_per_number_are_those_of_gguf(name: str, bits: float) -> None:
    assert GGUF_GRIDS[name].bits_per_number((7, 256)) == bits


def test_a_group_that_does_not_divide_is_refused_with_one_that_does() -> None:
    with pytest.raises(KronpressError, match=r"groups of 128 do not divide rows of 576; set group to 64, 32, row"):
        GGUF_GRIDS["q1_0"].require((10, 576))


def test_numbers_beyond_the_grid_go_to_its_ends() -> None:
    grid = Grid(levels="int3")
    codes = grid.codes(torch.tensor([[[-9.0, 9.0, 0.4, 0.6]]]), torch.ones(1, 1, 1))
    assert grid.values(codes, torch.ones(1, 1, 1)).tolist() == [[[-4.0, 3.0, 0.0, 1.0]]]


def test_a_scale_of_zero_stands_for_zeros() -> None:
    grid = Grid(levels="int4", group="tensor")
    codes = grid.codes(torch.randn(1, 1, 9), torch.zeros(1, 1, 1))
    assert grid.values(codes, torch.zeros(1, 1, 1)).abs().max() == 0


@pytest.mark.parametrize(
    ("shape", "rows"), [((6, 4), 6), ((3, 5, 8), 15), ((3, 50, 1), 3), ((2, 3, 5, 4), 6), ((7, 2, 2, 1), 7)]
)
def test_short_rows_of_factors_are_joined(shape: tuple[int, ...], rows: int) -> None:
    assert Grid(levels="int4").scales(shape) == (rows, 1)
