"""Write numbers that lie on a grid of ours on a grid of GGUF, where that changes none of them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kronpress.errors import KronpressError
from kronpress.export.gguf.types import TYPES, GgufType
from kronpress.layers import Coded, Grid

_SMALLEST_FIRST = ("q1_0", "tq2_0", "q2_0", "q4_0", "q4_1", "q8_0")


class OnGguf(NamedTuple):
    """A matrix on the grid of a GGUF type."""

    kind: GgufType
    coded: Coded


def on_gguf(coded: Coded, grid: Grid, *, shape: tuple[int, int], prefer: GgufType, place: str) -> OnGguf:
    """Return a matrix that lies on a grid on the smallest GGUF type that holds exactly its numbers.

    A scale that more numbers share is repeated for each block; levels may be turned around, with a negative scale.

    Args:
        coded: the matrix.
        grid: of ours.
        shape: of the matrix.
        prefer: taken where it has the same levels, as `tq1_0` has those of `tq2_0`.
        place: what messages call the matrix.

    Raises:
        KronpressError: no type holds it.
    """
    first = [prefer] if prefer.grid is not None and prefer.grid.levels == grid.levels else []
    for kind in [*first, *(TYPES[name] for name in _SMALLEST_FIRST)]:
        moved = _moved(coded, grid, kind, shape=shape)
        if moved is not None:
            return OnGguf(kind, moved)
    raise KronpressError(
        f"{place} lies on a grid that no number type of GGUF holds exactly ({grid.levels}, group {grid.group}, scales "
        f"in {grid.scale}{', with shifts' if grid.shift else ''}, rows of {shape[1]}); multiply it out first with "
        "`kronpress export --format dense`, then choose a --type, which rounds it anew"
    )


def _moved(coded: Coded, grid: Grid, kind: GgufType, *, shape: tuple[int, int]) -> Coded | None:
    """Return a matrix on the grid of a type, or None where that has not the same numbers."""
    target = kind.grid
    assert target is not None
    shared = grid.group if isinstance(grid.group, int) else shape[1]  # numbers of a row
    if shared % kind.block or (grid.shift and not target.shift):
        return None
    levels = _with_shift(coded, grid) if target.shift else _as_levels(coded, grid, target)
    if levels is None or levels.codes.amax() >= target.base:
        return None
    moved = _in_blocks(levels, shape, shared=shared, block=kind.block)
    stored = _stored(moved, target)
    return stored if _equal(stored, target, coded, grid) else None


def _with_shift(coded: Coded, grid: Grid) -> Coded:
    """Let the lowest level be the shift, and count the steps above it."""
    shift = grid.lowest * coded.scale
    return Coded(coded.codes, grid.step * coded.scale, shift if coded.shift is None else coded.shift + shift)


def _as_levels(coded: Coded, grid: Grid, target: Grid) -> Coded | None:
    """Use the same levels, or the same turned around."""
    for sign in (1, -1):
        if {sign * level for level in grid.numbers} <= set(target.numbers):
            places = [(sign * level - target.lowest) // target.step for level in grid.numbers]
            table = torch.tensor(places, dtype=torch.int32, device=coded.codes.device)
            return Coded(table[coded.codes.long()], sign * coded.scale)
    return None


def _in_blocks(coded: Coded, shape: tuple[int, int], *, shared: int, block: int) -> Coded:
    """Repeat scales so that each block has its own; groups span rows only where there is one for the whole matrix."""
    rows, columns = shape

    def repeated(scale: Tensor) -> Tensor:
        by_row = scale[..., 0].expand(rows, -1)
        return by_row.repeat_interleave(shared // block, dim=1)[..., None]

    shift = None if coded.shift is None else repeated(coded.shift)
    return Coded(coded.codes.reshape(rows, columns // block, block), repeated(coded.scale), shift)


def _stored(coded: Coded, target: Grid) -> Coded:
    shift = coded.shift
    if target.shift:
        shift = target.rounded(torch.zeros_like(coded.scale) if shift is None else shift)
    return Coded(coded.codes, target.rounded(coded.scale), shift)


def _equal(moved: Coded, target: Grid, coded: Coded, grid: Grid) -> bool:
    return torch.equal(target.values(*moved).flatten(), grid.values(*coded).flatten())
