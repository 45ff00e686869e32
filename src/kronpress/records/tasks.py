"""What models reach on tasks that they are fine-tuned for."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from kronpress.records.codec import Record
from kronpress.records.sizes import Footprint
from kronpress.records.training import TrainingRecord


@dataclass(frozen=True)
class Score(Record):
    """A mean over the runs with so many seeds, in percent; `deviation` is their standard deviation, None for one."""

    value: float
    deviation: float | None = None
    seeds: int = 1

    @classmethod
    def over(cls, values: Sequence[float]) -> Score:
        """Return the mean of the values of all seeds."""
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


@dataclass(frozen=True)
class SeedScore(Record):
    """What the training with one seed reached on the dev set, at the epoch that does best there.

    Attributes:
        seed: None for a model that came fine-tuned.
        score: None for a training that diverged, of which `error` tells.
        scores: by metric; `score` is a mean of some of them.
        elsewhere: by data set and metric, on data outside of the task's distribution.
        step: of the optimizer, after which the model was the best.
        epoch: the same, counted in passes over the training set.
        head_of_teacher: whether the head began as the teacher's.
        teacher: how the teacher was asked; None where the model learned from none.
    """

    seed: int | None
    score: float | None
    scores: Mapping[str, float] = field(default_factory=dict)
    elsewhere: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    step: int | None = None
    epoch: float | None = None
    head_of_teacher: bool = False
    teacher: Literal["run at every step", "read from disk"] | None = None
    training: TrainingRecord | None = None
    error: str | None = None

    def __post_init__(self) -> None:
        if self.score is not None and not self.scores:
            raise ValueError("a score is a mean of scores, and there are none")


@dataclass(frozen=True)
class ModelScore(Record):
    """What one model reaches on one task: `teacher`, `student`, or a baseline by its name.

    Attributes:
        footprint: of the model with the task's head.
        seeds: the runs that the score is a mean of.
        metrics: those whose mean the score is, and parts of them.
        elsewhere: by data set and metric, on data outside of the task's distribution.
        losses: what it was trained on: the losses' names by the recipe's labels.
        best_seed: None for a model that came fine-tuned.
        diverged: how many runs the score leaves out.
        settings: all that the result depends on; JSON values.
    """

    model: str
    score: Score
    footprint: Footprint
    seeds: Annotated[tuple[SeedScore, ...], Field(min_length=1)]
    metrics: Mapping[str, Score] = field(default_factory=dict)
    elsewhere: Mapping[str, Mapping[str, Score]] = field(default_factory=dict)
    losses: Mapping[str, str] = field(default_factory=dict)
    epochs: float = 0
    learning_rate: float = 0
    best_seed: int | None = None
    diverged: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, model: str, footprint: Footprint, seeds: Sequence[SeedScore]) -> ModelScore:
        """Return the means over the runs that did not diverge; there must be one."""
        runs = [(run.score, run) for run in seeds if run.score is not None]
        kept = tuple(run for _, run in runs)
        return cls(
            model=model,
            score=Score.over([score for score, _ in runs]),
            footprint=footprint,
            seeds=kept,
            metrics=_over([run.scores for run in kept]),
            elsewhere={name: _over([run.elsewhere[name] for run in kept]) for name in kept[0].elsewhere},
            best_seed=max(runs, key=lambda pair: pair[0])[1].seed,
            diverged=len(seeds) - len(kept),
        )


def _over(runs: Sequence[Mapping[str, float]]) -> dict[str, Score]:
    """Return the mean of each metric over the runs."""
    return {name: Score.over([scores[name] for scores in runs]) for name in runs[0]}


@dataclass(frozen=True)
class TaskRecord(Record):
    """What all models reach on one task; the score is the mean of the `metrics`.

    Attributes:
        split: which the scores are those of, and on which the epochs were selected as well.
        examples: how many each split has.
        after: the task whose models began here.
        step: of the recipe, counted from 1; 0 where that is not known.
    """

    task: str
    split: str
    metrics: tuple[str, ...]
    examples: Mapping[str, int]
    models: tuple[ModelScore, ...]
    after: str | None = None
    step: int = 0

    def of(self, model: str) -> ModelScore | None:
        """Return what one model reaches, None if it did not take part."""
        return next((score for score in self.models if score.model == model), None)


@dataclass(frozen=True)
class FinetuneRecord(Record):
    """What a step that fine-tunes models on tasks found."""

    kind: Literal["finetune"] = field(default="finetune", kw_only=True)
    tasks: tuple[TaskRecord, ...]
