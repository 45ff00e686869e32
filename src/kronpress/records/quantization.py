"""What a step did that put numbers on grids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from kronpress.records.codec import Record


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
        parts: bytes by part: `weights`, `tables`, `other` (norms, biases, what was left as it is).
    """

    kind: Literal["quantization"] = field(default="quantization", kw_only=True)
    scheme: Mapping[str, Any]
    fit: Mapping[str, Any]
    layers: tuple[QuantizedLayer, ...]
    bytes: int
    parts: Mapping[str, int]
