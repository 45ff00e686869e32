"""A task's data as the models that are trained on it read them, and how these score."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import PreTrainedModel

from kronpress.data import knows_more, require_known
from kronpress.families import position_limit
from kronpress.finetune.augment import Augmented
from kronpress.finetune.candidate import Candidate
from kronpress.losses import IGNORED
from kronpress.tasks import TASKS, ClassificationTask, Example, Feature, SentenceTask, Task, predict


@dataclass(frozen=True)
class TaskData:
    """What a task's models are trained on, selected by and scored on.

    Attributes:
        also: examples of other tasks, by their names, that the models are scored on as well.
        max_length: tokens of an example; by default what its task says.
        unlabeled: examples of other tasks of which the teacher alone says what they are.
        left_out: how many examples to train on stood in a dev set that the models are yet to be scored on.
        held_out: examples of the training set that select epochs and seeds; none where the dev set does.
        unseen: examples that nothing made of `train` may equal, for models are selected by or scored on them.
        augmented: copies of `train` with words replaced, for candidates that read such.
    """

    task: Task[Any, Any]
    train: Sequence[Any]
    dev: Sequence[Any]
    also: Mapping[str, Sequence[Any]]
    max_length: int | None = None
    unlabeled: Sequence[Example] = ()
    left_out: int = 0
    held_out: Sequence[Any] = ()
    unseen: Sequence[Example] = ()
    augmented: Augmented | None = None

    def check(self) -> None:
        """See that all that models are scored on has labels, and that what computes the scores is installed.

        Raises:
            KronpressError: it is not so.
        """
        others = [(TASKS[name], examples) for name, examples in self.also.items()]
        for task, examples in [(self.task, self.dev), *others]:
            if isinstance(task, SentenceTask):
                task.scores(examples, [example.label or 0.0 for example in examples])

    def training_features(self, candidate: Candidate) -> list[Feature]:
        """Return what a candidate is trained on: the training set, its copies with words replaced where it reads such,
        and, where it learns from a teacher, what has no label.
        """
        copies = self.augmented.examples if self.augmented is not None and candidate.augmented else []
        parts = [self.features(part, candidate) for part in (self.train, copies)]
        if candidate.compares:
            texts = self.features(self.unlabeled, candidate)
            parts.append([replace(feature, labels=(float(IGNORED),)) for feature in texts])
        starts = itertools.accumulate([len(self.train), len(copies)], initial=0)
        return [
            replace(feature, example=first + feature.example) if first else feature
            for first, part in zip(starts, parts, strict=False)
            for feature in part
        ]

    def require_known(self, candidate: Candidate) -> None:
        """Look for tokens that a candidate's model does not know in all that it will read, before hours are spent.

        Raises:
            KronpressError: there are some.
        """
        if knows_more(candidate.tokenizer, model=candidate.model):
            self.training_features(candidate)
            self.features(self.held_out, candidate)
            for name, examples in self.also.items():
                self.features(examples, candidate, task=TASKS[name])

    def features(
        self, examples: Sequence[Any], candidate: Candidate, *, task: Task[Any, Any] | None = None
    ) -> list[Feature]:
        """Return what a candidate reads of examples of this task, or of another."""
        if not examples:
            return []
        task = task or self.task
        length = self.max_length or task.max_length
        limit = position_limit(candidate.model)
        length = length if limit is None else min(length, limit)
        features = task.features(examples, candidate.tokenizer, max_length=length)
        highest = torch.tensor([max(feature.ids) for feature in features], dtype=torch.long)
        require_known(highest, candidate.tokenizer, model=candidate.model)
        return features

    def digest(self) -> str:
        """Return what tells these examples from others."""
        everything: tuple[Any, ...] = (self.task.name, self.train, self.dev, self.also, self.max_length, self.unlabeled)
        everything += (self.held_out,) if self.held_out else ()
        return hashlib.sha256(repr(everything).encode()).hexdigest()

    def measure(self, model: PreTrainedModel, features: Sequence[Feature]) -> tuple[float, dict[str, float]]:
        """Return the score of a model on the dev set, whose features are given, and the metrics that it is made of."""
        return self._measured(self.dev, model, features)

    def select(self, model: PreTrainedModel, features: Sequence[Feature]) -> float:
        """Return the score of a model on what is held out of the training set, whose features are given."""
        return self._measured(self.held_out, model, features)[0]

    def measure_on(self, name: str, model: PreTrainedModel, candidate: Candidate) -> dict[str, float]:
        """Return the scores of a candidate, as it is trained, on a data set outside of its training's distribution."""
        other, examples = TASKS[name], self.also[name]
        assert isinstance(other, ClassificationTask)
        features = self.features(examples, candidate, task=other)
        outputs = predict(model, features, progress=name)
        return other.scores(examples, other.answers_from(self.task.name, outputs))

    def _measured(
        self, examples: Sequence[Any], model: PreTrainedModel, features: Sequence[Feature]
    ) -> tuple[float, dict[str, float]]:
        scores = self.task.scores(examples, self.task.answers(examples, features, predict(model, features)))
        return self.task.score(scores), scores
