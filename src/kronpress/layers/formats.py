"""How the numbers of stored tensors are written."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from kronpress.layers.grid import Grid


@dataclass(frozen=True)
class TensorFormat:
    """How the numbers of a stored tensor are written, each by itself.

    Attributes:
        name: as torch calls it, or `model`: the format that the model as a whole is stored in.
        bits: of one number; 0 for `model`, which leaves that open.
    """

    name: str
    bits: int

    @classmethod
    def of(cls, dtype: torch.dtype) -> TensorFormat:
        """Return the format of the tensors of a dtype.

        >>> TensorFormat.of(torch.bfloat16)
        TensorFormat(name='bfloat16', bits=16)
        """
        return cls(str(dtype).removeprefix("torch."), 8 * dtype.itemsize)


MODEL = TensorFormat("model", 0)
FLOAT32 = TensorFormat.of(torch.float32)
BYTE = TensorFormat.of(torch.uint8)
_ORDERS = (torch.int16, torch.int32)


def order_dtype(size: int) -> torch.dtype:
    """Return the shortest whole numbers that say where each of so many rows or columns stands."""
    return next(dtype for dtype in _ORDERS if size - 1 <= torch.iinfo(dtype).max)


def order_spec(size: int) -> TensorSpec:
    """Return the form of an order of so many rows or columns; no paper counts its numbers as parameters."""
    return index_spec(size, of=size)


def index_spec(count: int, *, of: int) -> TensorSpec:
    """Return the form of so many numbers of rows or columns, `of` as many as there are; they are no parameters."""
    return TensorSpec((count,), TensorFormat.of(order_dtype(of)))


@dataclass(frozen=True)
class TensorSpec:
    """The shape of a stored tensor, and how its numbers are written: each by itself, or all on a grid."""

    shape: tuple[int, ...]
    format: TensorFormat | Grid = MODEL

    @property
    def numbers(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def parameters(self) -> int:
        """How many of them count as parameters."""
        return 0 if self.format in tuple(map(TensorFormat.of, _ORDERS)) else self.numbers

    @property
    def parts(self) -> dict[str, TensorSpec]:
        """What is stored of it, by the ending of its name: itself, or the codes of a grid and what they are scaled by.

        >>> list(TensorSpec((3, 64), Grid(levels="int4")).parts)
        ['packed', 'scale']
        """
        grid = self.format
        if isinstance(grid, TensorFormat):
            return {"": self}
        scales = TensorSpec(grid.scales(self.shape), TensorFormat.of(grid.scale_dtype))
        parts = {"packed": TensorSpec((grid.packed_size(self.shape),), BYTE), "scale": scales}
        return parts | ({"shift": scales} if grid.shift else {})

    def state(self, name: str) -> dict[str, TensorSpec]:
        """Return `parts` by the keys that a state dict has for them, where `name` is that of the tensor."""
        if isinstance(self.format, TensorFormat):
            return {name: self}
        path, dot, own = name.rpartition(".")
        return {f"{path}{dot}stored.{own}.{part}": tensor for part, tensor in self.parts.items()}

    def bytes(self, model: TensorFormat) -> int:
        """Return what it takes, in a model that is stored in the format `model`."""
        if isinstance(self.format, TensorFormat):
            bits = model.bits if self.format == MODEL else self.format.bits
            return -(-self.numbers * bits // 8)
        return sum(part.bytes(model) for part in self.parts.values())
