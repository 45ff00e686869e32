"""How the numbers of stored tensors are written."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class TensorFormat:
    """How the numbers of a stored tensor are written.

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
FORMATS = {"model": MODEL}
"""What a spec can name."""

FLOAT32 = TensorFormat.of(torch.float32)
INDEX = TensorFormat.of(torch.int32)
"""Whole numbers that say where something stands, such as an order of rows; no paper counts them as parameters."""


@dataclass(frozen=True)
class TensorSpec:
    """The shape of a stored tensor, and how its numbers are written."""

    shape: tuple[int, ...]
    format: TensorFormat = MODEL

    @property
    def numbers(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def parameters(self) -> int:
        """How many of them count as parameters."""
        return 0 if self.format == INDEX else self.numbers

    def bytes(self, model: TensorFormat) -> int:
        """Return what it takes, in a model that is stored in the format `model`."""
        bits = model.bits if self.format == MODEL else self.format.bits
        return -(-self.numbers * bits // 8)
