"""What a run has to say about itself: the records of its steps, one after the other, read by every form of report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kronpress.records import (
    Footprint,
    LayerChange,
    LmEvalComparison,
    QuantizationRecord,
    ReconstructRecord,
    Sample,
    SpeedRow,
    TaskRecord,
    TextSetComparison,
    TrainingPoint,
    TruncateRecord,
)


@dataclass(frozen=True)
class StepTime:
    """How long one step of the recipe took."""

    name: str
    seconds: float


@dataclass(frozen=True)
class PerplexityRow:
    """The perplexity of one stage under a named protocol; `ratio` is to the dense model under the same protocol."""

    stage: str
    protocol: str
    text: str
    perplexity: float
    ratio: float


@dataclass(frozen=True)
class LmEvalRow:
    """A metric of a task of lm-eval at one stage, of both models."""

    stage: str
    scores: LmEvalComparison


@dataclass(frozen=True)
class TextSetRow:
    """The perplexities on a set of texts at one stage, of both models."""

    stage: str
    scores: TextSetComparison


@dataclass(frozen=True)
class QuantizedStep:
    """What a step did that put numbers on grids; `number` is that of the step in the recipe, counted from 1."""

    number: int
    record: QuantizationRecord


@dataclass(frozen=True)
class RunSummary:
    """Everything a report shows; a part left empty is left out of the report.

    `training` and `validation` count the tokens of all steps before as well, and `tasks` know the steps that they are
    of. The headline shows the footprints, the first `speed` rows whose phase starts with `prefill` or `decode`, the
    first (protocol, text) of `perplexity`, whose last row counts as the final model, and the average of the `tasks`.
    """

    title: str
    base_model: str
    created: str
    description: str = ""
    recipe_yaml: str = ""
    pipeline_tag: str = "text-generation"
    environment: Mapping[str, str] = field(default_factory=dict)
    steps: Sequence[StepTime] = ()
    footprint_before: Footprint | None = None
    footprint_after: Footprint | None = None
    layers: Sequence[LayerChange] = ()
    truncated: Sequence[TruncateRecord] = ()
    reconstructed: Sequence[ReconstructRecord] = ()
    quantized: Sequence[QuantizedStep] = ()
    training: Sequence[TrainingPoint] = ()
    validation: Sequence[TrainingPoint] = ()
    perplexity: Sequence[PerplexityRow] = ()
    texts: Sequence[TextSetRow] = ()
    lm_eval: Sequence[LmEvalRow] = ()
    tasks: Sequence[TaskRecord] = ()
    speed: Sequence[SpeedRow] = ()
    samples: Sequence[Sample] = ()
    notes: Sequence[str] = ()
