"""Tasks on one text or two: a class or a number for each example."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from transformers import PreTrainedTokenizerBase

from kronpress.errors import KronpressError, did_you_mean, shown
from kronpress.tasks.metrics import METRICS, Numbers
from kronpress.tasks.rows import Columns, Request, Row, read_rows
from kronpress.tasks.task import DivergedError, Feature, Head, Outputs, Task

SPLITS: Mapping[str, tuple[str, ...]] = {"train": ("train",), "dev": ("dev", "validation"), "test": ("test",)}
"""What a split may be called, as a file without its ending or on the hub."""

_UNLABELED = -1  # in hub data sets, for classes and numbers alike


@dataclass(frozen=True)
class Example:
    """One or two texts and what is known of them.

    Attributes:
        label: index of the class, or the number; None in a test set.
        name: the row's own name, for submissions.
        group: the part of the data set that is scored on its own as well, if any.
    """

    first: str
    second: str | None
    label: float | None
    name: str
    group: str | None = None


@dataclass(frozen=True, kw_only=True)
class SentenceTask(Task[Example, float]):
    """What tasks on one text or two have in common; the metrics are names of `METRICS`.

    Attributes:
        columns: where texts and label stand in a row.
        files: what each split that the task has may be called; the first one found is read.
        hub: the data set and, if it has several, its configuration on the hub.
        trained_on: tasks whose fine-tuned models answer this one, for data outside of their distribution: for each of
            that task's classes, in order, which class of this task it stands for.
        scored_split: what these models are scored on.
        submission: name of the file, without its ending, that a GLUE submission wants; empty outside of GLUE.
    """

    columns: Columns
    files: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: dict(SPLITS))
    hub: tuple[str, ...] = ()
    trained_on: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    scored_split: str = "dev"
    submission: str = ""

    def read(self, source: str, split: str) -> list[Example]:
        """Read `train`, `dev` or `test`, see `read_rows` for what a source is; labels are optional in `test` only.

        Raises:
            KronpressError: missing, malformed or empty; the message names file, line and remedy.
        """
        self._require_split(split)
        labeled = split != "test"
        request = Request(columns=self.columns, names=self.files[split], labeled=labeled, hub=self.hub)
        return [self._example(row, labeled) for row in read_rows(source, request)]

    def features(
        self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, *, max_length: int
    ) -> list[Feature]:
        r"""Tokenize with the tokenizer's own special tokens; cut the end of whichever text is longer.

        A tokenizer with a template for pairs joins them in its own way. Others, such as the byte-level ones of GPT-2
        and SmolLM2, would run the two texts together: they read "first\nsecond", without token types. Where that
        leaves no token at all, for an empty text, the model reads the token that begins or ends a text.

        Raises:
            KronpressError: `max_length` has no room for a text, or an empty text has no token to stand for it.
        """
        paired = any(example.second is not None for example in examples)
        special = tokenizer.num_special_tokens_to_add(pair=paired)
        if max_length <= special:
            raise KronpressError(
                f"a max_length of {max_length} has no room for text beside {special} special tokens; "
                f"choose {special + 1} or more"
            )
        separates = tokenizer.num_special_tokens_to_add(pair=True) > tokenizer.num_special_tokens_to_add(pair=False)
        between = "" if separates else "\n"
        seconds = [f"{between}{example.second}" for example in examples] if paired else None
        encoded = tokenizer(
            [example.first for example in examples], seconds, truncation="longest_first", max_length=max_length
        )
        types = encoded.get("token_type_ids") if separates else None
        return [
            Feature(
                ids=tuple(encoded["input_ids"][index]) or (_stand_in(tokenizer),),
                types=tuple(types[index]) if types else None,
                labels=() if example.label is None else (example.label,),
                example=index,
            )
            for index, example in enumerate(examples)
        ]

    def answers(
        self, examples: Sequence[Example], features: Sequence[Feature], outputs: Sequence[Outputs]
    ) -> list[float]:
        """Return the class of the largest output, or the number.

        Raises:
            DivergedError: an output is not finite.
        """
        assert [feature.example for feature in features] == list(range(len(examples))), "one feature for each example"
        return self._finite_answers(outputs)

    def scores(self, examples: Sequence[Example], answers: Sequence[float]) -> dict[str, float]:
        """Return the `metrics`, then those of each group as `metric/group`, in percent.

        Raises:
            KronpressError: some example has no label.
        """
        unlabeled = [example.name for example in examples if example.label is None]
        if unlabeled:
            raise KronpressError(
                f"{len(unlabeled)} of {len(examples)} examples of '{self.name}' have no label, the first is "
                f"'{unlabeled[0]}'; score the split 'dev', or write a submission"
            )
        gold = np.array([example.label for example in examples], dtype=np.float64)
        predicted = np.array(answers, dtype=np.float64)
        scores = self._measure(gold, predicted)
        groups = np.array([example.group or "" for example in examples])
        for group in sorted(set(groups) - {""}):
            inside = groups == group
            parts = self._measure(gold[inside], predicted[inside])
            scores |= {f"{metric}/{group}": value for metric, value in parts.items()}
        return scores

    @abstractmethod
    def spell(self, answer: float) -> str:
        """Write an answer as the data set's own files do.

        Raises:
            KronpressError: it is none of the task's.
        """

    @abstractmethod
    def _label(self, value: str | float, place: str) -> float:
        """Interpret what stands in the label column."""

    @abstractmethod
    def _answer(self, output: Outputs) -> float:
        """Turn one output of the head into an answer."""

    def _example(self, row: Row, labeled: bool) -> Example:
        known = row.label is not None and row.label != _UNLABELED and str(row.label).strip() not in ("", "-1")
        if labeled and not known:
            raise KronpressError(
                f"{row.place}: no label ({shown(row.label)}); give one, remove the row, or read the split 'test'"
            )
        label = self._label(row.label, row.place) if known and row.label is not None else None
        return Example(row.first, row.second, label, row.name, row.group)

    def _finite_answers(self, outputs: Sequence[Outputs]) -> list[float]:
        broken = [number for number, output in enumerate(outputs) if not np.isfinite(output).all()]
        if broken:
            raise DivergedError(
                f"{len(broken)} of {len(outputs)} outputs of the model on '{self.name}' are not finite, the first for "
                f"row {broken[0]}; the model has diverged: train it with a lower learning rate"
            )
        return [self._answer(output) for output in outputs]

    def _measure(self, gold: Numbers, predicted: Numbers) -> dict[str, float]:
        return {metric: METRICS[metric](gold, predicted) for metric in self.metrics}

    def _require_split(self, split: str) -> None:
        if split in self.files:
            return
        if split == "train" and self.trained_on:
            elsewhere = " or ".join(f"'{name}'" for name in self.trained_on)
            raise KronpressError(
                f"'{self.name}' has no training data; train on {elsewhere}, whose models answer it, and name it under "
                "`also` of that step"
            )
        raise KronpressError(f"'{self.name}' has no split '{split}': {did_you_mean(split, self.files)}")


@dataclass(frozen=True, kw_only=True)
class ClassificationTask(SentenceTask):
    """Which of some classes does a text, or pair of texts, belong to?

    Attributes:
        labels: the classes in the order of the data set on the hub, where they are numbers; JSON may use these too.
        spellings: how files write a class, where not by its label, with the index of the class.
    """

    head: ClassVar[Head] = "classification"
    labels: tuple[str, ...]
    spellings: Mapping[str, int] = field(default_factory=dict)

    @property
    def outputs(self) -> int:
        """How many classes there are."""
        return len(self.labels)

    def answers_from(self, other: str, outputs: Sequence[Outputs]) -> list[float]:
        """Return what the outputs of a model fine-tuned on the task `other` say about this one.

        The largest of that model's outputs is chosen first, then read as a class of this task. So a model of MNLI that
        says neutral or contradiction says non-entailment on HANS, as in McCoy et al. (2019); the probabilities of the
        two are not added up.

        Raises:
            KronpressError: models of `other` do not answer this task, or give another number of outputs.
        """
        stands_for = {self.name: tuple(range(len(self.labels))), **self.trained_on}
        if other not in stands_for:
            raise KronpressError(f"models of '{other}' do not answer '{self.name}': {did_you_mean(other, stands_for)}")
        classes = stands_for[other]
        for output in outputs:
            if len(output) != len(classes):
                raise KronpressError(
                    f"a model of '{other}' gives {len(classes)} outputs, this one {len(output)}; name its own task"
                )
        return [float(classes[int(answer)]) for answer in self._finite_answers(outputs)]

    def spell(self, answer: float) -> str:
        """Write a class as the data set's own files do.

        Raises:
            KronpressError: there is no such class.
        """
        if answer not in range(len(self.labels)):
            raise KronpressError(f"'{self.name}' has no class {answer:g}; give an index below {len(self.labels)}")
        index = int(answer)
        return next((spelling for spelling, of in self.spellings.items() if of == index), self.labels[index])

    def _answer(self, output: Outputs) -> float:
        return float(np.argmax(output))

    def _label(self, value: str | float, place: str) -> float:
        known: dict[Any, int] = {label: index for index, label in enumerate(self.labels)} | dict(self.spellings)
        index = known.get(value.strip(), math.nan) if isinstance(value, str) else value
        if index not in range(len(self.labels)):
            numbers = f", or a number below {len(self.labels)}" if not isinstance(value, str) else ""
            raise KronpressError(
                f"{place}: unknown label {shown(str(value))} of '{self.name}': "
                f"{did_you_mean(str(value), known)}{numbers}"
            )
        return float(index)


@dataclass(frozen=True, kw_only=True)
class RegressionTask(SentenceTask):
    """What number between `low` and `high` belongs to a text, or pair of texts?

    Answers are scored as they are, also outside of the range; only submissions are clipped to it.
    """

    head: ClassVar[Head] = "regression"
    low: float
    high: float

    @property
    def outputs(self) -> int:
        """One number."""
        return 1

    def spell(self, answer: float) -> str:
        """Write a number with three decimals, clipped to the range.

        Raises:
            KronpressError: it is not finite.
        """
        if not math.isfinite(answer):
            raise KronpressError(f"'{self.name}' has no answer {answer:g}; give a finite number")
        return f"{min(max(self.low, answer), self.high):.3f}"

    def _answer(self, output: Outputs) -> float:
        return float(output[0])

    def _label(self, value: str | float, place: str) -> float:
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
        if not self.low <= number <= self.high:
            raise KronpressError(
                f"{place}: the label {shown(str(value))} of '{self.name}' is no number from {self.low:g} to "
                f"{self.high:g}; mend or remove the row"
            )
        return number


def _stand_in(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the token that an empty text is read as."""
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id):
        if token is not None:
            return int(token)
    raise KronpressError(
        "an empty text has no token, and the tokenizer none that begins or ends a text; set its eos_token"
    )
