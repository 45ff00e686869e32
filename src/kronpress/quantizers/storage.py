"""What users say of numbers on grids: how many bits, and how they get there."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from kronpress.errors import KronpressError
from kronpress.layers import Grid, InputGrid
from kronpress.quantizers.quantizer import QUANTIZERS, Quantizer
from kronpress.validation import Checked, parse_named

_FULL = 32.0
"""The bits of numbers that are left as they are."""


class BitWidth(Checked):
    """How many bits a number has, and which quantizer gives it those; a number alone stands for `{bits: …}`.

    Attributes:
        bits: 1, 1.58 (ternary), 2, 3, 4 or 8; 32 leaves the numbers as they are.
        quantizer: by name or with its fields.
        shift: whether the grid has a shift beside its scale; null for what the quantizer prefers.
    """

    by_bits: ClassVar[dict[float, str]] = {}
    otherwise: ClassVar[str]

    bits: float = Field(gt=0, le=_FULL)
    quantizer: SerializeAsAny[Quantizer]
    shift: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _spelled_out(cls, value: Any) -> Any:
        fields = {"bits": value} if isinstance(value, int | float) else value
        if not isinstance(fields, dict) or not isinstance(fields.get("bits"), int | float):
            return fields
        return {"quantizer": cls.by_bits.get(fields["bits"], cls.otherwise)} | fields

    @field_validator("quantizer", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Quantizer:
        quantizer: Quantizer = parse_named(value, QUANTIZERS, key="quantizer")
        return quantizer

    @model_validator(mode="after")
    def _possible(self) -> BitWidth:
        if not self.leaves:
            self.grid()
        return self

    @property
    def leaves(self) -> bool:
        """Whether the numbers stay as they are."""
        return self.bits == _FULL

    def grid(self) -> Grid:
        """Return the grid."""
        raise NotImplementedError


class Storage(BitWidth):
    """How the numbers of tensors are stored.

    Attributes:
        quantizer: by default `bwn` for 1 bit, `twn` for 1.58 and `mse` for more.
        group: how many numbers of a row share a scale; or `row`, or `tensor` for one scale in all.
        scale: number format of the scales.
        least: numbers of a factor that goes on the grid; smaller ones stay as they are, which takes next to nothing,
            and errors in them are errors in all of a product.
    """

    by_bits: ClassVar[dict[float, str]] = {1: "bwn", 1.58: "twn"}
    otherwise: ClassVar[str] = "mse"

    group: int | Literal["row", "tensor"] = "row"
    scale: Literal["float16", "bfloat16", "float32"] = "float16"
    least: int = Field(default=64, ge=1)

    def grid(self) -> Grid:
        """Return the grid."""
        return self.quantizer.grid(self.bits, group=self.group, scale=self.scale, shift=self.shift)


class Rounding(BitWidth):
    """How the inputs of linear layers are rounded.

    Attributes:
        quantizer: by default `minmax` for 8 bits, `elastic` for 1 and `lsq` between.
        group: `row` for a scale of each token, `tensor` for one scale in all; by default `tensor`, and `row` in a
            decoder where every batch gives its own scale.
    """

    by_bits: ClassVar[dict[float, str]] = {8: "minmax", 32: "minmax", 1: "elastic"}
    otherwise: ClassVar[str] = "lsq"

    group: Literal["row", "tensor"] | None = None

    def grid(self) -> InputGrid:
        """Return the grid."""
        return self.quantizer.input_grid(self.bits, group=self.group or "tensor", shift=self.shift)

    def settled(self, *, causal: bool) -> Rounding:
        """Return it with its group for a model that reads from left to right, or for another.

        Raises:
            KronpressError: one scale that a whole batch gives would tell a decoder of later tokens.
        """
        row = causal and self.quantizer.inputs == "dynamic"
        if row and self.group == "tensor":
            raise KronpressError(
                "inputs: one scale for all tokens of a batch tells a decoder of later tokens; set group: row, or a "
                "quantizer that stores its scale, such as lsq"
            )
        return self if self.group else self.model_copy(update={"group": "row" if row else "tensor"})
