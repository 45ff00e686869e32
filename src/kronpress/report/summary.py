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
class Score:
    """A mean over the runs with so many seeds, in percent; `deviation` is their standard deviation, None for one."""

    value: float
    deviation: float | None = None
    seeds: int = 1


@dataclass(frozen=True)
class ModelScore:
    """What one model reaches on one task: `teacher`, `student`, or a baseline by its name.

    `footprint` is that of the model with the task's head, by the labels above; `diverged` counts runs that the score
    leaves out; `metrics` are those whose mean the score is, and parts of them; `elsewhere` are those on other data sets
    than the task's, by their names.
    """

    model: str
    score: Score
    footprint: Mapping[str, Quantity] = field(default_factory=dict)
    diverged: int = 0
    metrics: Mapping[str, Score] = field(default_factory=dict)
    elsewhere: Mapping[str, Mapping[str, Score]] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskScores:
    """What all models reach on one task; the score is the mean of the `metrics`.

    `step` counts the steps of the recipe from 1; `examples` says how many each split has; the scores are those of
    `split`, on which the epochs were selected as well. `after` is the task whose models began here.
    """

    task: str
    step: int
    split: str
    metrics: Sequence[str]
    examples: Mapping[str, int]
    models: Sequence[ModelScore]
    after: str | None = None

    def of(self, model: str) -> ModelScore | None:
        """Return what one model reaches, None if it did not take part."""
        return next((each for each in self.models if each.model == model), None)

    def metrics_of(self, model: str) -> dict[str, Score]:
        """Return what one model reaches by each metric, none where the score is the only one."""
        found = self.of(model)
        return {} if found is None or len(found.metrics) < 2 else dict(found.metrics)

    def elsewhere_of(self, model: str) -> dict[str, Score]:
        """Return what one model reaches on other data, by their names and metrics."""
        found = self.of(model)
        parts = {} if found is None else found.elsewhere
        return {f"{data}: {metric}": score for data, scores in parts.items() for metric, score in scores.items()}


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
    feed the headline. `speed` rows whose name starts with `prefill` or `decode` do so too, the first (protocol, text)
    of `perplexity`, whose last row counts as the final model, and the average of the `tasks`.
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
    tasks: Sequence[TaskScores] = ()
    speed: Sequence[SpeedRow] = ()
    samples: Sequence[Sample] = ()
    notes: Sequence[str] = ()
