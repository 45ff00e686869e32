"""What a step did that put numbers on grids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from kronpress.records.codec import Record


@dataclass(frozen=True)
class NumberFormat(Record):
    """How numbers of one kind are stored, or rounded while the model computes.

    Attributes:
        bits: 1, 1.58 (ternary), 2, 3, 4 or 8; 32 where they are left as they are.
        quantizer: its name; None where they are left as they are.
        group: how many numbers of a row share a scale; or `row`, or `tensor`; None where they are left as they are.
    """

    bits: float
    quantizer: str | None = None
    group: int | str | None = None


@dataclass(frozen=True)
class NumberFormats(Record):
    """The bits of a model: of the weights of its linear layers, of its tables, and of the inputs of linear layers.

    Inputs are None where they are left as they are.
    """

    weights: NumberFormat
    tables: NumberFormat
    inputs: NumberFormat | None = None


@dataclass(frozen=True)
class InputRange(Record):
    """How the inputs of a layer are rounded: to scale · level + shift.

    Attributes:
        path: of the layer.
        role: of the site, as families name it.
        block: counted from 0; None outside of the blocks.
        levels: as grids call them.
        ends: the lowest and the highest level.
        scale: None where every batch gives its own.
        shift: None where there is none, or every batch gives its own.
        low: the smallest input that was seen as the rounding began; None where the layer was given none.
        high: the largest.
    """

    path: str
    role: str
    block: int | None
    levels: str
    ends: tuple[int, int]
    scale: float | None = None
    shift: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def reach(self) -> tuple[float, float] | None:
        """The smallest and the largest number that inputs are rounded to; None where every batch gives its own.

        >>> InputRange("up", "up", 0, "int4", (-8, 7), scale=0.5).reach
        (-4.0, 3.5)
        """
        if self.scale is None:
            return None
        first, last = (self.scale * level + (self.shift or 0.0) for level in self.ends)
        return min(first, last), max(first, last)  # a scale may be negative


@dataclass(frozen=True)
class QuantizedLayer(Record):
    """What became of one layer.

    Attributes:
        path: of the module.
        role: of the site, as families name it.
        block: counted from 0; None outside of the blocks.
        bits: stored for each number of its matrices, scales and shifts included.
        bytes_before: of all its tensors, in float32 where they were on no grid.
        bytes_after: likewise.
        relative_error: ‖W − W'‖ / ‖W‖ over its matrices; of a layer with factors over those.
        output_error: √(E‖(W − W')x‖² / E‖Wx‖²) over the inputs x of a text; None where none was read.
    """

    path: str
    role: str
    block: int | None
    bits: float
    bytes_before: int
    bytes_after: int
    relative_error: float
    output_error: float | None = None


@dataclass(frozen=True)
class QuantizationRecord(Record):
    """What a step did that put numbers of layers on grids.

    Attributes:
        scheme: which tensors went on which grids; JSON values.
        fit: how the codes were found; JSON values.
        layers: in the order in which they were changed.
        bytes: of the whole student as it is stored now.
        parts: bytes by part: `weights` of linear layers with their biases, `tables`, `other` (norms and the like).
        parts_before: likewise, as they were stored before the step; empty in records of earlier versions.
        formats: the bits and the quantizers of the scheme.
        inputs: how inputs are rounded, of each layer whose inputs are.
    """

    kind: Literal["quantization"] = field(default="quantization", kw_only=True)
    scheme: Mapping[str, Any]
    fit: Mapping[str, Any]
    layers: tuple[QuantizedLayer, ...]
    bytes: int
    parts: Mapping[str, int]
    parts_before: Mapping[str, int] = field(default_factory=dict)
    formats: NumberFormats | None = None
    inputs: tuple[InputRange, ...] = ()
