"""Numbers on our grids are the same on GGUF's, or are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kronpress.errors import KronpressError
from kronpress.export.gguf import TYPES, on_gguf, packed_blocks
from kronpress.layers import GGUF_GRIDS, Grid
from tests.export.gguf_files import dequantized, rounded

F32 = TYPES["f32"]
CASES = [
    *[(grid, 512, name) for name, grid in GGUF_GRIDS.items() if name != "tq1_0"],
    (Grid(levels="int8"), 96, "q8_0"),  # one scale a row, repeated
    (Grid(levels="int8", group="tensor"), 96, "q8_0"),
    (Grid(levels="int4", group=128), 384, "q4_0"),
    (Grid(levels="int3"), 64, "q4_0"),
    (Grid(levels="int2", group=64), 192, "q2_0"),  # levels turned around
    (Grid(levels="int2", group=32), 192, "q4_0"),
    (Grid(levels="uint4"), 64, "q4_1"),  # a shift of 0
    (Grid(levels="uint3", shift=True), 64, "q4_1"),
    (Grid(levels="raised2", group=32), 96, "q4_0"),
    (Grid(levels="ternary", group="tensor"), 512, "tq2_0"),
    (Grid(levels="ternary"), 576, "q2_0"),
    (Grid(levels="ternary", group=64), 576, "q2_0"),
    (Grid(levels="ternary", group=32), 96, "q4_0"),
    (Grid(levels="binary", group="tensor"), 384, "q1_0"),
    (Grid(levels="binary", group=64), 576, "q2_0"),
    (Grid(levels="zero_one"), 128, "q2_0"),
]


def a_matrix(columns: int, *, rows: int = 5) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(columns))


@pytest.mark.parametrize(("grid", "columns", "name"), CASES, ids=str)
def test_the_smallest_type_that_holds_them_has_the_same_numbers(grid: Grid, columns: int, name: str) -> None:
    tensor = rounded(a_matrix(columns), grid)
    kind, coded = on_gguf(tensor.coded(), grid, shape=(5, columns), prefer=F32, place="here")
    assert kind.name == name
    np.testing.assert_array_equal(dequantized(packed_blocks(coded, kind), name), tensor().numpy())


@pytest.mark.parametrize("name", ["tq1_0", "tq2_0"])
def test_ternary_numbers_are_packed_as_asked(name: str) -> None:
    tensor = rounded(a_matrix(256), Grid(levels="ternary"))
    kind, _ = on_gguf(tensor.coded(), tensor.grid, shape=(5, 256), prefer=TYPES[name], place="here")
    assert kind.name == name


def test_scales_in_full_precision_are_kept_where_float16_holds_them() -> None:
    weight = a_matrix(64)
    for factor, held in ((1.0, True), (1.0 + 2**-12, False)):
        grid = Grid(levels="int4", scale="float32")
        weight[:, 0], weight[:, 1:] = 7 * factor, weight[:, 1:].clamp(-1, 1)
        tensor = rounded(weight, grid)
        if held:
            assert on_gguf(tensor.coded(), grid, shape=(5, 64), prefer=F32, place="here").kind.name == "q4_0"
        else:
            with pytest.raises(KronpressError, match="scales in float32"):
                on_gguf(tensor.coded(), grid, shape=(5, 64), prefer=F32, place="here")


@pytest.mark.parametrize(
    ("grid", "columns"),
    [
        (Grid(levels="int4", group=16), 64),
        (Grid(levels="int4"), 48),
        (Grid(levels="uint8", shift=True), 64),
        (Grid(levels="uint8"), 64),
    ],
    ids=str,
)
def test_what_no_type_holds_is_refused(grid: Grid, columns: int) -> None:
    tensor = rounded(a_matrix(columns), grid)
    with pytest.raises(KronpressError, match=rf"the up-projection lies on a grid .*rows of {columns}.*--format dense"):
        on_gguf(tensor.coded(), grid, shape=(5, columns), prefer=F32, place="the up-projection")
