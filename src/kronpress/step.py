"""What a recipe's steps have in common."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Int
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from kronpress.checkpoint.files import read_json, write_json
from kronpress.data import (
    Corpus,
    StoredWindows,
    TextWindows,
    beginning,
    count_of_windows,
    knows_more,
    require_known,
    spread,
    stored_tokens,
    tokenize,
    windows,
)
from kronpress.errors import KronpressError
from kronpress.records import Record, StepRecord, decode, encode
from kronpress.registry import Shelf
from kronpress.validation import Checked

R = TypeVar("R", bound=Record)

_SPREAD = 64  # times the tokens that are read: so far into a text they are looked for


@dataclass(frozen=True)
class Needs:
    """What a step cannot do without, beside the student and its tokenizer.

    Attributes:
        teacher: the dense model; a run holds it beside the student for as long as a step needs it, and no longer.
        text: the recipe's training text or its held-out text.
        copies: disk space for the step's own folder, in copies of the model in float32.
        all_processes: whether all processes run it, where there are several; other steps run in the main one alone.
    """

    teacher: bool = True
    text: bool = True
    copies: int = 0
    all_processes: bool = False


NO_TEXT = Corpus("the text of a run whose steps read none", "")


@dataclass
class Workbench:
    """What a step may use.

    Attributes:
        student: the model being compressed; a step changes it in place.
        dense: the model that it comes from, never changed; None in a run where no step needs it.
        train: text for calibration and training.
        held_out: text for measuring, never trained on.
        folder: the step's own folder, for what it needs to resume.
        measurements: file with what was measured of the dense model, so that it is measured once per run.
        seed: of this step.
        dtype: number format of the parameters of the finished model; steps compute in float32.
        notes: what is to be told of the text as the steps have read it.
    """

    student: PreTrainedModel
    dense: PreTrainedModel | None
    tokenizer: Any
    train: Corpus
    held_out: Corpus
    folder: Path
    measurements: Path | None = None
    seed: int = 0
    dtype: torch.dtype = torch.float32
    notes: list[str] = field(default_factory=list)

    @property
    def unfinished(self) -> Path:
        """The folder for what the step needs to go on after an interruption; it is removed when the step is done."""
        return self.folder / "trainer"

    @property
    def teacher(self) -> PreTrainedModel:
        """The dense model, which a step has here if its `needs` say so."""
        assert self.dense is not None, "a step uses the teacher, and its `needs` say that it does not"
        return self.dense

    def remember(self, key: str, kind: type[R], measure: Callable[[], R]) -> R:
        """Return what `measure` gives, a record of this kind, or what it gave when the run measured it before."""
        kept = self._kept()
        if key not in kept:
            value = encode(measure())
            kept[key] = {"value": value, "sha256": _digest(value)}
            if self.measurements:
                write_json(self.measurements, kept)
        remedy = "remove it, and what it holds is measured again"
        return decode(kind, kept[key]["value"], place=self.measurements, remedy=remedy)

    def _kept(self) -> dict[str, Any]:
        """Return the measurements so far, without what is damaged and is measured anew."""
        if self.measurements is None or not self.measurements.exists():
            return {}
        try:
            kept = read_json(self.measurements)
            sound = {key: entry for key, entry in kept.items() if entry["sha256"] == _digest(entry["value"])}
        except (KronpressError, AttributeError, KeyError, TypeError):
            kept, sound = None, {}
        if sound != kept:
            tqdm.write(f"warning: {self.measurements} is damaged; what it lacks is measured again")
        return sound

    def training_windows(self, *, size: int, tokens: int | None = None) -> Int[Tensor, "windows size"]:
        """Return windows of the training text in its order: all, or so many that about `tokens` are in them.

        The latter stand evenly apart, as far as `_reach` tells: a text begins with one chapter, and that is not what
        all of it is like. Where the model needs it, each window begins with the token of the beginning of a text.
        """
        if tokens is None:
            self._note_shares(None)
            return self._windows(self.train, size=size, limit=None)
        read = max(size, tokens)
        self._note_shares(read)
        found = self._windows(self.train, size=size, limit=self._reach(read))
        first = beginning(self.tokenizer, model=self.student)
        return spread(found, count=count_of_windows(read, size=size, name=self.train.name, first=first))

    def drawn_windows(self, *, size: int, drawn: int | None, tokens: int | None = None) -> TextWindows:
        """Return the windows of the training text for a step that draws so many tokens of them from all over.

        Of a mixture of texts it gets those as far as `_reach` tells, because in all of a mixture the longest text has
        the largest share; without a number it gets all. Windows of a large text are read from the cache, where its
        tokens are put once. A check needs only some of about `tokens` of a small one.
        """
        if not self.train.is_large and tokens is not None:
            return self.training_windows(size=size, tokens=tokens)
        read = None if self.train.shares is None or drawn is None else max(size, drawn)
        limit = None if read is None else self._reach(read)
        self._note_shares(read)
        if not self.train.is_large:
            return self._windows(self.train, size=size, limit=limit)
        ids = stored_tokens(self.train, self.tokenizer, model=self.student, limit=limit)
        first = beginning(self.tokenizer, model=self.student)
        return StoredWindows(ids, size=size, name=self.train.name, first=first, limit=limit)

    def training_ids(self, *, tokens: int | None = None) -> Int[Tensor, " tokens"]:
        """Return the ids of the training text, or of its first `tokens` tokens, at least one and nothing added."""
        self._note_shares(tokens)
        return windows(self._ids(self.train, limit=tokens), size=1, name=self.train.name).flatten()

    def training_counts(self, rows: int, *, tokens: int | None = None) -> Int[Tensor, " rows"]:
        """Return how often each of the ids below `rows` stands in the training text, or in its first `tokens` tokens.

        There are more where the text has larger ids.
        """
        if tokens is not None or not self.train.is_large:
            return torch.bincount(self.training_ids(tokens=tokens), minlength=rows)
        self._note_shares(None)
        return stored_tokens(self.train, self.tokenizer, model=self.student).counts(rows)

    def held_out_windows(self, *, size: int, count: int) -> Int[Tensor, "windows size"]:
        """Return the first `count` windows of the held-out text, or as many as it has."""
        return self._windows(self.held_out, size=size, limit=size * count)[:count]

    def _note_shares(self, limit: int | None) -> None:
        """Note that so many tokens of a mixture, or all, are more than those in which its texts have their shares."""
        shares = self.train.shares
        if shares is None or (limit is not None and limit <= shares.tokens):
            return
        read = "all of it is" if limit is None else f"up to {limit:,} are"
        note = (
            f"the training text {self.train.name} keeps its shares for about {shares.tokens:,} tokens, where "
            f"{shares.ends} ends, and {read} read; the other texts fill up the rest"
        )
        if note not in self.notes:
            self.notes.append(note)
            tqdm.write(f"note: {note}")

    def _reach(self, tokens: int) -> int:
        """Return how far into the training text windows of so many tokens may stand.

        That is 64 times as far, and in a mixture of texts no farther than they keep their shares.
        """
        far = _SPREAD * tokens
        return far if self.train.shares is None else max(tokens, min(far, self.train.shares.tokens))

    def _windows(self, text: Corpus, *, size: int, limit: int | None) -> Int[Tensor, "windows size"]:
        first = beginning(self.tokenizer, model=self.student)
        return windows(self._ids(text, limit=limit), size=size, name=text.name, first=first)

    def require_known_texts(self) -> None:
        """Look for tokens that the model does not know in the whole of both texts, before hours are spent on a part.

        Raises:
            KronpressError: there are some.
        """
        if knows_more(self.tokenizer, model=self.student):
            for text in (self.train, self.held_out):
                if text.is_large:
                    stored_tokens(text, self.tokenizer, model=self.student)
                else:
                    self._ids(text, limit=None)

    def _ids(self, text: Corpus, *, limit: int | None) -> Int[Tensor, " tokens"]:
        ids = tokenize(text, self.tokenizer, limit=limit)
        require_known(ids, self.tokenizer, model=self.student)
        return ids


class Step(Checked, ABC):
    """One stage of a recipe: its fields are its hyperparameters, `run` does the work."""

    kind: ClassVar[str]
    changes_student: ClassVar[bool] = True

    def needs(self) -> Needs:
        """Return what the step cannot do without; by default the dense model and the text."""
        return Needs()

    def check(self, bench: Workbench) -> None:
        """Look for what would make `run` fail, before any step has run, while `bench.student` is the dense model.

        Raises:
            KronpressError: the model or the text does not suit the step.
        """

    def foreseen(self, student: PreTrainedModel) -> PreTrainedModel:
        """Return a model of the depth and width that the step will leave, for the checks of the steps behind it.

        What it computes does not matter, and `student` stays as it is.
        """
        return student

    def works_by_block(self, student: PreTrainedModel) -> bool:
        """Say whether the step can do with a student whose blocks stay in files, one at a time being in memory."""
        return False

    def sources(self) -> dict[str, str]:
        """Return digests of what the step reads beside the recipe's model and text, by what messages call it."""
        return {}

    @abstractmethod
    def run(self, bench: Workbench) -> StepRecord:
        """Change `bench.student` in place and return a record of what was done."""


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


STEPS: Shelf[type[Step]] = Shelf("step")
