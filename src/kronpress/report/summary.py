"""What a run has to say about itself: plain values, filled by the pipeline, read by every form of report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

PARAMETERS = "parameters"
PARAMETERS_UNTIED = "parameters, untied"
PARAMETERS_WITHOUT_HEAD = "parameters, without head"
PARAMETERS_EFFECTIVE = "parameters, multiplied out"
FLOPS = "FLOPs per token"
BLOCK_FLOPS = "FLOPs per token, blocks (eq. 7)"
DISK = "size on disk"
PEAK_MEMORY = "peak memory (RSS)"


@dataclass(frozen=True)
class Quantity:
    """A number with its unit: `parameters`, `bytes`, `FLOPs` are abbreviated, any other unit is printed as given."""

    value: float
    unit: str


@dataclass(frozen=True)
class StepTime:
    """How long one step of the recipe took."""

    name: str
    seconds: float


@dataclass(frozen=True)
class LayerError:
    """What replacing one layer changed: ‖W − W'‖ / ‖W‖, or the same on activations, as the step defines it."""

    path: str
    role: str
    relative_error: float


@dataclass(frozen=True)
class TrainingPoint:
    """A loss (in nats) after so many training tokens."""

    tokens: int
    loss: float


@dataclass(frozen=True)
class PerplexityRow:
    """The perplexity of one stage under a named protocol; `ratio` is to the dense model under the same protocol."""

    stage: str
    protocol: str
    text: str
    perplexity: float
    ratio: float


@dataclass(frozen=True)
class SpeedRow:
    """Throughput of dense and student, measured alternating; `ratio` is student ÷ dense, within `low` … `high`."""

    name: str
    dense: float
    student: float
    ratio: float
    low: float
    high: float
    unit: str = "tokens/s"


@dataclass(frozen=True)
class Sample:
    """What the model wrote after `prompt` before and after compression."""

    prompt: str
    before: str
    after: str


@dataclass(frozen=True)
class RunSummary:
    """Everything a report shows; a part left empty is left out of the report.

    `footprint_before` and `footprint_after` map a row label to a quantity. The labels above (`PARAMETERS`, `DISK`, …)
    feed the headline. `speed` rows whose name starts with `prefill` or `decode` do so too, and the first
    (protocol, text) of `perplexity`, whose last row counts as the final model.
    """

    title: str
    base_model: str
    created: str
    description: str = ""
    recipe_yaml: str = ""
    pipeline_tag: str = "text-generation"
    environment: Mapping[str, str] = field(default_factory=dict)
    steps: Sequence[StepTime] = ()
    footprint_before: Mapping[str, Quantity] = field(default_factory=dict)
    footprint_after: Mapping[str, Quantity] = field(default_factory=dict)
    layer_errors: Sequence[LayerError] = ()
    training: Sequence[TrainingPoint] = ()
    validation: Sequence[TrainingPoint] = ()
    perplexity: Sequence[PerplexityRow] = ()
    speed: Sequence[SpeedRow] = ()
    samples: Sequence[Sample] = ()
    notes: Sequence[str] = ()
