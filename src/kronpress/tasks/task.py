"""What a task is: examples, what a model is to say of each, and how good its answers are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeAlias, TypeVar

import numpy as np
from jaxtyping import Float
from transformers import PreTrainedTokenizerBase

from kronpress.data import user_path
from kronpress.errors import KronpressError
from kronpress.registry import Shelf

Head: TypeAlias = Literal["classification", "regression", "spans"]
Outputs: TypeAlias = Float[np.ndarray, "..."]
"""What a head gives for one feature: (classes,), (1,) or, for spans, (2, tokens): where the answer starts and ends."""

ExampleT = TypeVar("ExampleT")
AnswerT = TypeVar("AnswerT")


class DivergedError(KronpressError):
    """What a model says is not finite."""


@dataclass(frozen=True)
class Feature:
    """What a model reads at once.

    Attributes:
        ids: of the tokens, special ones included, no padding.
        types: 0 in the first text and 1 in the second, where the tokenizer tells them apart.
        labels: the class, the number, or the first and last token of the answer; empty where not known.
        example: index of the example it comes from.
        offsets: for spans, where in the context each token stands, (0, 0) for tokens outside of it.
    """

    ids: tuple[int, ...]
    types: tuple[int, ...] | None
    labels: tuple[float, ...]
    example: int
    offsets: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Task(ABC, Generic[ExampleT, AnswerT]):
    """A data set with a question, and its metrics; all scores are in percent.

    Attributes:
        name: in recipes and reports.
        metrics: names of the scores; the task's score is their mean, as in GLUE.
        max_length: tokens of an example, by default; longer ones are cut (or read in parts, for spans).
        folders: what its folder may be called, other than by the task's name.
    """

    head: ClassVar[Head]
    name: str
    metrics: tuple[str, ...]
    max_length: int = 128
    folders: tuple[str, ...] = ()

    @property
    @abstractmethod
    def outputs(self) -> int:
        """How many numbers the head gives: for each text, or for spans for each token."""

    def find(self, source: str) -> str:
        """Return this task's folder inside of a folder with several (`SST-2` for sst-2), else the source itself."""
        folder, names = user_path(source), {_plain(name) for name in (self.name, *self.folders)}
        inside = folder.iterdir() if folder.is_dir() else ()
        return next((str(path) for path in inside if path.is_dir() and _plain(path.name) in names), source)

    @abstractmethod
    def read(self, source: str, split: str) -> list[ExampleT]:
        """Read `train`, `dev` or `test` from a folder, a file or a hub data set.

        Raises:
            KronpressError: missing, malformed or empty; the message names file, line and remedy.
        """

    @abstractmethod
    def features(
        self, examples: Sequence[ExampleT], tokenizer: PreTrainedTokenizerBase, *, max_length: int
    ) -> list[Feature]:
        """Return what the model reads, in the order of the examples."""

    @abstractmethod
    def answers(
        self, examples: Sequence[ExampleT], features: Sequence[Feature], outputs: Sequence[Outputs]
    ) -> list[AnswerT]:
        """Return the model's answer to each example."""

    @abstractmethod
    def scores(self, examples: Sequence[ExampleT], answers: Sequence[AnswerT]) -> dict[str, float]:
        """Return the `metrics`, then whatever else is worth knowing, in percent.

        Raises:
            KronpressError: some example has no label.
        """

    def score(self, scores: Mapping[str, float]) -> float:
        """Return the task's one number: the mean of its metrics."""
        return sum(scores[name] for name in self.metrics) / len(self.metrics)


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


TASKS: Shelf[Task[Any, Any]] = Shelf("task")
