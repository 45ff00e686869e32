"""Which blocks of a model stay: what every way to choose has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from kronpress.errors import KronpressError
from kronpress.families import window_of
from kronpress.records import BlockMeasure
from kronpress.registry import Shelf
from kronpress.step import Workbench
from kronpress.validation import Checked

_SPREAD = 16  # times the tokens that are read: so far they are drawn apart


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


def calibration(bench: Workbench, *, tokens: int) -> Int[Tensor, "windows size"]:
    """Return so many tokens from the start of the training text as windows.

    The student has not been trained on them yet, so that what is chosen by them is held out.
    """
    size = window_of(bench.student)
    return bench.training_windows(size=size, tokens=max(size, tokens))


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
    windows = bench.drawn_windows(size=size, drawn=_SPREAD * (first + then) * size)
    if len(windows) < 2:
        raise KronpressError(
            f"{bench.train.name} has one window of {size} tokens, and a repair is judged on another one than it is "
            "fitted to; give a longer text, or leave repair out"
        )
    count = min(len(windows), first + then)
    places = torch.linspace(0, len(windows) - 1, count).round().long().tolist()
    chosen = torch.stack([windows[place] for place in places])
    cut = min(count - 1, max(1, round(count * first / (first + then))))
    return chosen[cut:], chosen[:cut]
