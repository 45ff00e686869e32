"""A model that is fine-tuned on a task, and the task's data as it reads them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import PreTrainedModel

from kronpress.activations.trace import Reading
from kronpress.checkpoint.digests import weights_digest
from kronpress.data import knows_more, require_known
from kronpress.families import position_limit
from kronpress.losses import IGNORED, LayerLoss, Loss
from kronpress.tasks import TASKS, Example, Feature, SentenceTask, Task
from kronpress.validation import path_name


@dataclass(frozen=True)
class Contender:
    """A model that is to be fine-tuned, and how.

    Attributes:
        name: in reports, and of its folder.
        model: where it starts.
        tokenizer: its own.
        losses: what is minimized.
        epochs: passes over the training set.
        learning_rate: peak.
        dropout: probability, or None for what its configuration says.
    """

    name: str
    model: PreTrainedModel
    tokenizer: Any
    losses: Mapping[str, Loss]
    epochs: float
    learning_rate: float
    dropout: float | None = None

    def __post_init__(self) -> None:
        path_name(self.name, what="a model")

    def settings(self) -> dict[str, Any]:
        """Return what the result depends on, but for data and teacher."""
        losses = {label: {"name": loss.kind, **loss.model_dump(mode="json")} for label, loss in self.losses.items()}
        return {
            "losses": losses,
            "epochs": self.epochs,
            "learning_rate": self.learning_rate,
            "dropout": self.dropout,
            "start": weights_digest(self.model),
        }

    @property
    def compares(self) -> bool:
        """Whether it learns from a teacher."""
        return any(loss.compares for loss in self.losses.values())

    @property
    def readings(self) -> frozenset[Reading]:
        """What it must know of the inside of its teacher."""
        return frozenset().union(*(loss.reads for loss in self.losses.values() if isinstance(loss, LayerLoss)))


@dataclass(frozen=True)
class Data:
    """What a task's models are trained on, selected by and scored on.

    Attributes:
        also: examples of other tasks, by their names, that the models are scored on as well.
        max_length: tokens of an example; by default what its task says.
        unlabeled: examples of other tasks of which the teacher alone says what they are.
        left_out: how many examples to train on stood in a dev set that the models are yet to be scored on.
    """

    task: Task[Any, Any]
    train: Sequence[Any]
    dev: Sequence[Any]
    also: Mapping[str, Sequence[Any]]
    max_length: int | None = None
    unlabeled: Sequence[Example] = ()
    left_out: int = 0

    def check(self) -> None:
        """See that all that models are scored on has labels, and that what computes the scores is installed.

        Raises:
            KronpressError: it is not so.
        """
        for task, examples in ((self.task, self.dev), *((TASKS[name], found) for name, found in self.also.items())):
            if isinstance(task, SentenceTask):
                task.scores(examples, [each.label or 0.0 for each in examples])

    def training_features(self, contender: Contender) -> list[Feature]:
        """Return what a contender is trained on; one that learns from a teacher reads what has no label as well."""
        features = self.features(self.train, contender)
        if not contender.compares:
            return features
        first = len(self.train)
        return features + [
            replace(each, labels=(float(IGNORED),), example=first + each.example)
            for each in self.features(self.unlabeled, contender)
        ]

    def require_known(self, contender: Contender) -> None:
        """Look for tokens that a contender's model does not know in all that it will read, before hours are spent.

        Raises:
            KronpressError: there are some.
        """
        if knows_more(contender.tokenizer, model=contender.model):
            self.training_features(contender)
            for name, examples in self.also.items():
                self.features(examples, contender, task=TASKS[name])

    def features(
        self, examples: Sequence[Any], contender: Contender, *, task: Task[Any, Any] | None = None
    ) -> list[Feature]:
        """Return what a contender reads of examples of this task, or of another."""
        if not examples:
            return []
        task = task or self.task
        length = self.max_length or task.max_length
        known = position_limit(contender.model)
        length = length if known is None else min(length, known)
        features = task.features(examples, contender.tokenizer, max_length=length)
        highest = torch.tensor([max(feature.ids) for feature in features], dtype=torch.long)
        require_known(highest, contender.tokenizer, model=contender.model)
        return features

    def digest(self) -> str:
        """Return what tells these examples from others."""
        known = (self.task.name, self.train, self.dev, self.also, self.max_length, self.unlabeled)
        return hashlib.sha256(repr(known).encode()).hexdigest()
