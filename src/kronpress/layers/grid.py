"""Grids: the few numbers that those of a tensor are rounded to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Bool, Float, Int, Integer, UInt8
from pydantic import BaseModel, ConfigDict, Field, StrictBool
from torch import Tensor

from kronpress.errors import KronpressError
from kronpress.linalg import look_up, look_up_rows, pack, packed_size, unpack

Groups = Float[Tensor, "rows groups size"]
"""Numbers in groups that have a scale each."""
Scales = Float[Tensor, "rows groups 1"]
"""The scales, or shifts, of groups."""

Levels = Literal[
    "int8", "int4", "int3", "int2", "uint8", "uint4", "uint3", "uint2", "raised2", "ternary", "binary", "zero_one"
]
LEVELS: Mapping[Levels, Sequence[int]] = {
    "int8": range(-128, 128),
    "int4": range(-8, 8),
    "int3": range(-4, 4),
    "int2": range(-2, 2),
    "uint8": range(256),
    "uint4": range(16),
    "uint3": range(8),
    "uint2": range(4),
    "raised2": range(-1, 3),  # of GGUF's Q2_0
    "ternary": range(-1, 2),
    "binary": range(-1, 2, 2),
    "zero_one": range(2),  # the second set of BiT
}
"""The whole numbers, in equal steps, that the codes 0, 1, … stand for."""

SCALES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
_HALF = 0.495  # of a step, which rounding in float32 leaves at its level
_GROUPS = (128, 64, 32)
_SHORT = 8


class Grid(BaseModel):
    """Where the numbers of a tensor may lie: scale · level + shift, with one scale (and shift) for each group.

    A tensor of more than two dimensions counts as rows that are as long as its last one; a last dimension of fewer than
    8 is joined with the one before, as a scale for so few numbers would take more than they do.

    Attributes:
        levels: the name of a set of whole numbers in `LEVELS`; `numbers` are they.
        group: numbers of a row that share a scale; or `row`, or `tensor` for one scale in all.
        scale: number format of scales and shifts.
        shift: whether there is one; symmetric grids have none.

    >>> Grid(levels="int4", group=64).bits_per_number((9, 128))
    4.25
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    levels: Levels
    group: Annotated[int, Field(strict=True, ge=1)] | Literal["row", "tensor"] = "row"
    scale: Literal["float16", "bfloat16", "float32"] = "float16"
    shift: StrictBool = False

    @property
    def numbers(self) -> Sequence[int]:
        """The levels."""
        return LEVELS[self.levels]

    @property
    def lowest(self) -> int:
        """The level of code 0."""
        return self.numbers[0]

    @property
    def step(self) -> int:
        """From a level to the next."""
        return self.numbers[1] - self.numbers[0]

    @property
    def base(self) -> int:
        """How many levels there are."""
        return len(self.numbers)

    @property
    def scale_dtype(self) -> torch.dtype:
        """The number format of scales and shifts."""
        return SCALES[self.scale]

    def require(self, shape: Sequence[int]) -> None:
        """Check that groups divide the rows of a tensor.

        Raises:
            KronpressError: they do not; the message offers groups that do.
        """
        _, row = _rows(shape)
        if isinstance(self.group, int) and row % self.group:
            offers = [str(group) for group in _GROUPS if row % group == 0 and group != self.group]
            raise KronpressError(
                f"groups of {self.group} do not divide rows of {row}; set group to {', '.join([*offers, 'row'])} or "
                "tensor"
            )

    def scales(self, shape: Sequence[int]) -> tuple[int, int]:
        """Return how many rows of scales there are for a tensor, and how many a row."""
        if self.group == "tensor":
            return 1, 1
        rows, row = _rows(shape)
        return rows, 1 if self.group == "row" else row // self.group

    def packed_size(self, shape: Sequence[int]) -> int:
        """Return the bytes that the codes of a tensor take."""
        return packed_size(math.prod(shape), base=self.base)

    def bits_per_number(self, shape: Sequence[int]) -> float:
        """Return the bits stored for each number of a tensor, scales and shifts included."""
        scales = math.prod(self.scales(shape)) * (1 + self.shift) * self.scale_dtype.itemsize
        return 8 * (self.packed_size(shape) + scales) / math.prod(shape)

    def groups(self, tensor: Tensor) -> Groups:
        """Return a tensor in the groups that have a scale each."""
        return tensor.reshape(*self.scales(tensor.shape), -1)

    def rounded(self, scale: Tensor) -> Tensor:
        """Return scales or shifts as they are stored, in the dtype that they have."""
        return scale.to(self.scale_dtype).to(scale.dtype)

    def codes(self, groups: Groups, scale: Scales, shift: Scales | None = None) -> Int[Tensor, "rows groups size"]:
        """Return the code of the level nearest to each number; a half goes to the even level, as torch rounds.

        A scale of 0 has all numbers at the code of level 0, or the next above.
        """
        centered = groups if shift is None else groups - shift
        levels = centered / torch.where(scale == 0, torch.inf, scale)
        return levels.sub_(self.lowest).div_(self.step).round_().clamp_(0, self.base - 1).to(torch.int32)

    def span(self, groups: Groups) -> tuple[Scales, Scales | None]:
        """Return the scale, and shift, with which a grid reaches all numbers of each group.

        With a shift that is uniform min–max; without, the largest absolute number is the highest level. Two levels
        without a shift stand for the mean absolute number, which is nearest to all.
        """
        if self.shift:
            low, high = groups.amin(dim=-1, keepdim=True), groups.amax(dim=-1, keepdim=True)
            scale = (high - low) / (self.step * (self.base - 1))
            return self.rounded(scale), self.rounded(low - self.lowest * scale)
        size = groups.abs()
        largest = size.mean(dim=-1, keepdim=True) if self.levels == "binary" else size.amax(dim=-1, keepdim=True)
        return self.rounded(largest / self.numbers[-1]), None

    def straight(self, numbers: Groups, values: Groups, scale: Scales, *, shift: Scales | None = None) -> Groups:
        """Return `values`, with the gradient of `numbers` where those lie between the ends of the grid."""
        first, last = (level * scale + (0 if shift is None else shift) for level in (self.lowest, self.numbers[-1]))
        low, high = torch.minimum(first, last), torch.maximum(first, last)  # a scale may be negative
        pass_through: Any = _Straight.apply
        straight: Groups = pass_through(numbers, values, (numbers >= low) & (numbers <= high))
        return straight

    def values(self, codes: Integer[Tensor, "rows groups size"], scale: Scales, shift: Scales | None = None) -> Groups:
        """Return the numbers that codes stand for."""
        values = codes.to(scale.dtype, copy=True).mul_(self.step).add_(self.lowest) * scale
        return values if shift is None else values.add_(shift)

    def nearest_with(
        self, codes: Integer[Tensor, "rows groups size"], numbers: Groups, scale: Scales, *, shift: Scales | None = None
    ) -> Groups:
        """Return, for each code, the number nearest to a given one that has it: at most half a step from its level."""
        values, reach = self.values(codes, scale, shift), _HALF * self.step * scale.abs()
        return numbers.clamp(values - reach, values + reach)

    def pack(self, codes: Integer[Tensor, "*any"]) -> UInt8[Tensor, " bytes"]:
        """Return codes as they are stored (`kronpress.linalg.pack`), those of all rows one after the other."""
        return pack(codes.flatten(), base=self.base)

    def unpack(self, packed: UInt8[Tensor, " bytes"], *, shape: Sequence[int]) -> UInt8[Tensor, "*shape"]:
        """Return the codes of a tensor."""
        return unpack(packed, base=self.base, count=math.prod(shape)).view(*shape)

    def read(
        self, packed: UInt8[Tensor, " bytes"], scale: Tensor, shift: Tensor | None, *, shape: Sequence[int]
    ) -> Float[Tensor, "*shape"]:
        """Return the float32 numbers of a stored tensor.

        Args:
            packed: its codes.
            scale: (rows, groups), as `scales` says.
            shift: likewise, where there is one.
            shape: of the tensor.
        """
        if self.base == 256:  # a byte is a code, and arithmetic is faster than look-ups
            levels = packed.float().mul_(self.step).add_(self.lowest)
        else:
            levels = look_up(packed, self._numbers_on(packed.device), count=math.prod(shape))
        return _scaled(levels.view(*self.scales(shape), -1), scale, shift).view(*shape)

    def read_rows(
        self, packed: UInt8[Tensor, " bytes"], scale: Tensor, shift: Tensor | None, *, ids: Tensor, shape: Sequence[int]
    ) -> Float[Tensor, "some width"]:
        """Return some rows of a stored matrix, equal to those of `read`, from their bytes alone.

        Raises:
            IndexError: an id is none of a row.
        """
        ids = torch.arange(shape[0], device=ids.device).index_select(0, ids)  # which checks them
        levels = look_up_rows(packed, self._numbers_on(packed.device), ids, width=shape[1])
        if self.group != "tensor":
            scale, shift = scale.index_select(0, ids), None if shift is None else shift.index_select(0, ids)
        return _scaled(levels.view(len(ids), scale.shape[1], -1), scale, shift).view(len(ids), shape[1])

    def _numbers_on(self, device: torch.device) -> Float[Tensor, " levels"]:
        return torch.tensor(tuple(self.numbers), dtype=torch.float32, device=device)


def _rows(shape: Sequence[int]) -> tuple[int, int]:
    """Return how many rows a tensor counts as, and how long they are."""
    sizes = list(shape)
    while len(sizes) > 2 and sizes[-1] < _SHORT:
        sizes[-2:] = [sizes[-2] * sizes[-1]]
    return math.prod(sizes[:-1]), sizes[-1]


def _scaled(levels: Groups, scale: Tensor, shift: Tensor | None) -> Groups:
    """Return levels, which are overwritten, times scales and with shifts as they are stored."""
    values = levels.mul_(scale.float()[..., None])
    return values if shift is None else values.add_(shift.float()[..., None])


class _Straight(torch.autograd.Function):
    """Passes the gradient of its second argument to the places of the first that are inside."""

    @staticmethod
    def forward(ctx: Any, numbers: Groups, values: Groups, inside: Bool[Tensor, "rows groups size"]) -> Groups:
        ctx.save_for_backward(inside)
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (inside,) = ctx.saved_tensors
        return gradients[0] * inside, None, None


GGUF_GRIDS: Mapping[str, Grid] = {
    "q8_0": Grid(levels="int8", group=32),
    "q4_0": Grid(levels="int4", group=32),
    "q4_1": Grid(levels="uint4", group=32, shift=True),
    "q2_0": Grid(levels="raised2", group=64),
    "q1_0": Grid(levels="binary", group=128),
    "tq1_0": Grid(levels="ternary", group=256),
    "tq2_0": Grid(levels="ternary", group=256),
}
"""Grids that GGUF files hold under these names."""
