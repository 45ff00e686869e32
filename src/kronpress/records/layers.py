"""What a step that replaces or shortens layers did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from kronpress.records.codec import Record


@dataclass(frozen=True)
class LayerChange(Record):
    """What became of one layer.

    Attributes:
        path: of the module, or of the block's part that several modules make up.
        role: of the site, as families name it.
        block: counted from 0; None outside of the blocks.
        relative_error: ‖W − W'‖ / ‖W‖, or the same on activations, as the step defines it.
        layer: what stands there now, in a few words.
    """

    path: str
    role: str
    block: int | None
    parameters_before: int
    parameters_after: int
    relative_error: float
    layer: str


@dataclass(frozen=True)
class FactorizeRecord(Record):
    """What a step did that replaced or shortened layers without training.

    Attributes:
        method: its name and its settings, with what they come to for this model; JSON values.
        modules: the layers in the order in which they were changed.
        notes: sentences that a reader of the report should know.
        parameters: of the whole student afterwards.
    """

    kind: Literal["factorize"] = field(default="factorize", kw_only=True)
    method: Mapping[str, Any]
    modules: tuple[LayerChange, ...]
    notes: tuple[str, ...]
    parameters: int


@dataclass(frozen=True)
class BlockMeasure(Record):
    """What was measured of one block, counted from 0; see `TruncateRecord.measure`."""

    block: int
    value: float


@dataclass(frozen=True)
class RepairMeasure(Record):
    """What a shortened model loses without and with repaired weights; the lower one decides which of them it has."""

    without: float
    repaired: float


@dataclass(frozen=True)
class TruncateRecord(Record):
    """What a step did that kept some of the blocks.

    Attributes:
        method: its name and its settings; JSON values.
        depth: the blocks that there were.
        kept: the blocks that stayed, counted from 0.
        measure: what the values of `measured` are; empty where nothing was measured.
        measured: the blocks in the order in which they were removed or, where all are measured at once, in their own.
        repair: what repairing the others came to; None where it was not asked for.
        parameters: of the whole student afterwards.
    """

    kind: Literal["truncate"] = field(default="truncate", kw_only=True)
    method: Mapping[str, Any]
    depth: int
    kept: tuple[int, ...]
    parameters: int
    measure: str = ""
    measured: tuple[BlockMeasure, ...] = ()
    repair: RepairMeasure | None = None


@dataclass(frozen=True)
class BlockErrors(Record):
    """The errors of one block, counted from 0, before and after it was trained; see `ReconstructRecord`."""

    block: int
    before: float
    after: float


@dataclass(frozen=True)
class ReconstructRecord(Record):
    """What a step did that trained the blocks one by one.

    Attributes:
        method: its settings; JSON values.
        blocks: E‖ŷ − y‖² / ‖y‖² of each on windows that it was not trained on: y leaves the block in the dense model, ŷ
            in the student, whose earlier blocks are trained already.
        parameters: of the whole student afterwards.
    """

    kind: Literal["reconstruct"] = field(default="reconstruct", kw_only=True)
    method: Mapping[str, Any]
    blocks: tuple[BlockErrors, ...]
    parameters: int
