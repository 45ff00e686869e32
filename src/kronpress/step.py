"""What a recipe's steps have in common."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from jaxtyping import Int
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from kronpress.checkpoint.files import read_json, write_json
from kronpress.data import Corpus, knows_more, require_known, tokenize, windows
from kronpress.errors import KronpressError
from kronpress.registry import Shelf
from kronpress.validation import Checked


@dataclass
class Workbench:
    """What a step may use.

    Attributes:
        student: the model being compressed; a step changes it in place.
        teacher: the dense model it comes from; never changed.
        train: text for calibration and training.
        held_out: text for measuring, never trained on.
        folder: the step's own folder, for what it needs to resume.
        memory: file with measurements of the teacher, which are taken once per run.
        seed: of this step.
    """

    student: PreTrainedModel
    teacher: PreTrainedModel
    tokenizer: Any
    train: Corpus
    held_out: Corpus
    folder: Path
    memory: Path | None = None
    seed: int = 0

    def remember(self, key: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return what `measure` gives, from the run's memory where it was measured before."""
        kept = self._kept()
        if key not in kept:
            value = measure()
            kept[key] = {"value": value, "sha256": _digest(value)}
            if self.memory:
                write_json(self.memory, kept)
        remembered: dict[str, Any] = kept[key]["value"]
        return remembered

    def _kept(self) -> dict[str, Any]:
        """Return what the memory holds, without what is damaged and is measured anew."""
        if self.memory is None or not self.memory.exists():
            return {}
        try:
            kept = read_json(self.memory)
            sound = {key: entry for key, entry in kept.items() if entry["sha256"] == _digest(entry["value"])}
        except (KronpressError, AttributeError, KeyError, TypeError):
            kept, sound = None, {}
        if sound != kept:
            tqdm.write(f"warning: {self.memory} is damaged; what it lacks is measured again")
        return sound

    def training_windows(self, *, size: int, tokens: int | None = None) -> Int[Tensor, "windows size"]:
        """Return the training text, or about its first `tokens` tokens, as windows of ids in the order of the text."""
        limit = None if tokens is None else max(size, tokens)
        return windows(self._ids(self.train, limit=limit), size=size, name=self.train.name)

    def held_out_windows(self, *, size: int, count: int) -> Int[Tensor, "windows size"]:
        """Return the first `count` windows of the held-out text, or as many as it has."""
        return windows(self._ids(self.held_out, limit=size * count), size=size, name=self.held_out.name)

    def require_known_texts(self) -> None:
        """Look for tokens that the model does not know in the whole of both texts, before hours are spent on a part.

        Raises:
            KronpressError: there are some.
        """
        if knows_more(self.tokenizer, model=self.student):
            for text in (self.train, self.held_out):
                self._ids(text, limit=None)

    def _ids(self, text: Corpus, *, limit: int | None) -> Int[Tensor, " tokens"]:
        ids = tokenize(text, self.tokenizer, limit=limit)
        require_known(ids, self.tokenizer, model=self.student)
        return ids


class Step(Checked, ABC):
    """One stage of a recipe: its fields are its hyperparameters, `run` does the work."""

    kind: ClassVar[str]
    changes_student: ClassVar[bool] = True
    in_all_processes: ClassVar[bool] = False  # where there are several; other steps run in the main one alone

    def check(self, bench: Workbench) -> None:
        """Look for what would make `run` fail, before any step has run; `bench.student` is still the dense model.

        Raises:
            KronpressError: the model or the text does not suit the step.
        """

    def sources(self) -> dict[str, str]:
        """Return digests of what the step reads beside the recipe's model and text, by what messages call it."""
        return {}

    @abstractmethod
    def run(self, bench: Workbench) -> dict[str, Any]:
        """Change `bench.student` in place and return a report of JSON values."""


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


STEPS: Shelf[type[Step]] = Shelf("step")
