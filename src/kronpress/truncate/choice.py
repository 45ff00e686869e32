"""Which blocks of a model stay: what every way to choose has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Int
from pydantic import Field
from torch import Tensor
from transformers import PreTrainedModel

from kronpress.errors import KronpressError
from kronpress.families import layout, window_of
from kronpress.records import BlockMeasure
from kronpress.registry import Shelf
from kronpress.step import Workbench
from kronpress.validation import Checked


@dataclass(frozen=True)
class Chosen:
    """The blocks that stay, and what was measured to choose them.

    Attributes:
        measure: what the values of `measured` are, in a few words.
    """

    kept: Sequence[int]
    measured: Sequence[BlockMeasure] = ()
    measure: str = ""


class Choice(Checked, ABC):
    """A way to choose the blocks that stay; its fields are its settings."""

    kind: ClassVar[str]
    reads_text: ClassVar[bool] = False

    @abstractmethod
    def choose(self, bench: Workbench, *, keep: int | None) -> Chosen:
        """Return which blocks of the student stay, `keep` of them where the choice does not say it itself."""

    def check(self, bench: Workbench, *, keep: int | None) -> None:
        """Look for what would make `choose` fail.

        Raises:
            KronpressError: the number or the text does not suit the choice.
        """
        self.number(keep, bench.student)

    def count(self, keep: int | None) -> int | None:
        """Return how many blocks are to stay: `keep`, where the choice does not say it itself."""
        return keep

    def number(self, keep: int | None, model: PreTrainedModel) -> int:
        """Return how many blocks of a model stay.

        Raises:
            KronpressError: none is named, or not fewer than there are.
        """
        count, depth = self.count(keep), depth_of(model)
        if count is None:
            raise KronpressError(f"keep is missing; say how many of the {depth} blocks stay")
        if count >= depth:
            raise KronpressError(f"keep: {count} of {depth} blocks leaves out none; choose at most {depth - 1}")
        return count

    def settings(self) -> Mapping[str, Any]:
        """Return name and fields, as a record has them."""
        return {"name": self.kind, **self.model_dump(mode="json")}


class Measured(Choice):
    """A way that measures the blocks on the training text.

    Attributes:
        tokens: of that text, in windows from all over it.
    """

    reads_text: ClassVar[bool] = True
    tokens: int = Field(default=8192, ge=1)

    def check(self, bench: Workbench, *, keep: int | None) -> None:
        """Check the number, and that the text has a window."""
        super().check(bench, keep=keep)
        calibration(bench, tokens=1)


CHOICES: Shelf[type[Choice]] = Shelf("choice of blocks")


def depth_of(model: PreTrainedModel) -> int:
    """Return how many blocks a model has."""
    return len(layout(model).block_paths)


def calibration(bench: Workbench, *, tokens: int) -> Int[Tensor, "windows size"]:
    """Return so many tokens of the training text as windows from all over it.

    The student has not been trained on them yet, so that what is chosen by them is held out.
    """
    return bench.training_windows(size=window_of(bench.student), tokens=tokens)


def apart(
    bench: Workbench, *, judged: int, fitted: int
) -> tuple[Int[Tensor, "windows size"], Int[Tensor, "others size"]]:
    """Return so many tokens of the training text to judge by, and so many to fit to, as windows from all over it.

    Those to judge by stand behind the others. A text that is shorter is divided in the same ratio.

    Raises:
        KronpressError: it has not two windows.
    """
    size = window_of(bench.student)
    first, then = -(-fitted // size), -(-judged // size)
    chosen = bench.training_windows(size=size, tokens=(first + then) * size)
    if len(chosen) < 2:
        raise KronpressError(
            f"{bench.train.name} has one window of {size} tokens, and a repair is judged on another one than it is "
            "fitted to; give a longer text, or leave repair out"
        )
    cut = min(len(chosen) - 1, max(1, round(len(chosen) * first / (first + then))))
    return chosen[cut:], chosen[:cut]
