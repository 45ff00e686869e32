"""What models reach on tasks that they are fine-tuned for."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from kronpress.records.codec import Record
from kronpress.records.quantization import InputRange, NumberFormats
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
    """What the training with one seed reached on the dev set, at the epoch that was selected.

    Attributes:
        seed: None for a model that came fine-tuned.
        score: None for a training that diverged, of which `error` tells.
        scores: by metric; `score` is a mean of some of them.
        elsewhere: by data set and metric, on data outside of the task's distribution.
        step: of the optimizer, after which the model was the best.
        epoch: the same, counted in passes over the training set.
        head_of_teacher: whether the head began as the teacher's.
        teacher: how the teacher was asked; None where the model learned from none.
        held_out: the score on the part of the training set that selected the epoch; None where the dev set did.
        best_on_dev: the best of all epochs on the dev set, as papers report; None where it is `score`.
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
    held_out: float | None = None
    best_on_dev: float | None = None

    def __post_init__(self) -> None:
        if self.score is not None and not self.scores:
            raise ValueError("a score is a mean of scores, and there are none")

    @property
    def selects(self) -> float:
        """The score that selects the best seed, minus infinity for a training that diverged."""
        selecting = self.score if self.held_out is None else self.held_out
        return -math.inf if self.score is None or selecting is None else selecting


@dataclass(frozen=True)
class ModelScore(Record):
    """What one model reaches on one task: `teacher`, `student`, or a baseline by its name.

    Attributes:
        footprint: of the model with the task's head.
        seeds: the runs that the score is a mean of.
        metrics: those whose mean the score is, and parts of them.
        elsewhere: by data set and metric, on data outside of the task's distribution.
        losses: what it was trained on: the losses' names by the recipe's labels.
        best_seed: the one whose model is saved; None for a model that came fine-tuned.
        diverged: how many runs the score leaves out.
        settings: all that the result depends on; JSON values.
        best_on_dev: the mean of each run's best epoch on the dev set, as papers report; None where it is the score.
        formats: at which bits a stage trained it; None of a model that is no stage.
        inputs: how inputs are rounded in the saved model, of each layer whose inputs are.
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
    best_on_dev: Score | None = None
    formats: NumberFormats | None = None
    inputs: tuple[InputRange, ...] = ()

    @classmethod
    def of(cls, model: str, footprint: Footprint, seeds: Sequence[SeedScore]) -> ModelScore:
        """Return the means over the runs that did not diverge; there must be one."""
        runs = [(run.score, run) for run in seeds if run.score is not None]
        kept = tuple(run for _, run in runs)
        bests = [run.best_on_dev for run in kept if run.best_on_dev is not None]
        return cls(
            model=model,
            score=Score.over([score for score, _ in runs]),
            footprint=footprint,
            seeds=kept,
            metrics=_over([run.scores for run in kept]),
            elsewhere={name: _over([run.elsewhere[name] for run in kept]) for name in kept[0].elsewhere},
            best_on_dev=Score.over(bests) if len(bests) == len(kept) else None,
            best_seed=max(kept, key=lambda run: run.selects).seed,
            diverged=len(seeds) - len(kept),
        )


def _over(runs: Sequence[Mapping[str, float]]) -> dict[str, Score]:
    """Return the mean of each metric over the runs."""
    return {name: Score.over([scores[name] for scores in runs]) for name in runs[0]}


@dataclass(frozen=True)
class TaskRecord(Record):
    """What all models reach on one task; the score is the mean of the `metrics`.

    Attributes:
        split: which the scores are those of.
        examples: how many each split has.
        after: the task whose models began here.
        step: of the recipe, counted from 1; 0 where that is not known.
        selected_on: what selected epochs and best runs: the dev set, or a part of the training set that no model was
            trained on.
    """

    task: str
    split: str
    metrics: tuple[str, ...]
    examples: Mapping[str, int]
    models: tuple[ModelScore, ...]
    after: str | None = None
    step: int = 0
    selected_on: Literal["dev", "train"] = "dev"

    def of(self, model: str) -> ModelScore | None:
        """Return what one model reaches, None if it did not take part."""
        return next((score for score in self.models if score.model == model), None)


@dataclass(frozen=True)
class FinetuneRecord(Record):
    """What a step that fine-tunes models on tasks found."""

    kind: Literal["finetune"] = field(default="finetune", kw_only=True)
    tasks: tuple[TaskRecord, ...]
