"""Which blocks of a model stay: what every way to choose has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Int
from torch import Tensor

from kronpress.families import window_of
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
    reads_text: ClassVar[bool] = True

    @abstractmethod
    def choose(self, bench: Workbench, *, keep: int | None) -> Chosen:
        """Return which blocks of the student stay, `keep` of them where the choice does not say it itself."""

    def check(self, bench: Workbench, *, keep: int | None) -> None:
        """Look for what would make `choose` fail.

        Raises:
            KronpressError: the number or the text does not suit the choice.
        """

    def count(self, keep: int | None) -> int:
        """Return how many blocks stay, `keep` where the choice does not say it itself."""
        assert keep is not None, "a choice that needs a number checks that there is one"
        return keep

    def settings(self) -> Mapping[str, Any]:
        """Return name and fields, as a record has them."""
        return {"name": self.kind, **self.model_dump(mode="json")}


CHOICES: Shelf[type[Choice]] = Shelf("choice of blocks")


def calibration(bench: Workbench, *, tokens: int, after: int = 0) -> Int[Tensor, "windows size"]:
    """Return so many tokens of the training text as windows, behind the first `after` tokens.

    The student has not been trained on them yet, so that what is chosen by them is held out.
    """
    size = window_of(bench.student)
    windows = bench.training_windows(size=size, tokens=after + max(size, tokens))
    skipped = min(after // size, len(windows) - 1)
    return windows[skipped:]
