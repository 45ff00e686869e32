"""What a recipe's steps have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from jaxtyping import Int
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from transformers import PreTrainedModel

from kronpress.data import Corpus, tokenize, windows
from kronpress.registry import Shelf


@dataclass
class Workbench:
    """What a step may use.

    Attributes:
        student: the model being compressed; a step changes it in place.
        teacher: the dense model it comes from; never changed.
        train: text for calibration and training.
        held_out: text for measuring, never trained on.
        folder: the step's own folder, for what it needs to resume.
        seed: of this step.
        final: whether this is the last step.
    """

    student: PreTrainedModel
    teacher: PreTrainedModel
    tokenizer: Any
    train: Corpus
    held_out: Corpus
    folder: Path
    seed: int = 0
    final: bool = True

    def training_windows(self, *, size: int) -> Int[Tensor, "windows size"]:
        """Return the training text as windows of token ids, in the order of the text."""
        return windows(tokenize(self.train, self.tokenizer), size=size, name=self.train.name)


class Step(BaseModel, ABC):
    """One stage of a recipe: its fields are its hyperparameters, `run` does the work."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: ClassVar[str]

    @abstractmethod
    def run(self, bench: Workbench) -> dict[str, Any]:
        """Change `bench.student` in place and return a report of JSON values."""


STEPS: Shelf[type[Step]] = Shelf("step")
