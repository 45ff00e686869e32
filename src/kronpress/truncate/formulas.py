"""Blocks by their places alone: the strategies of the Short Study, for any depth and any number of kept blocks.

"A Short Study on Compressing Decoder-Based Language Models" (Li et al., 2021) publishes lists for GPT-2 in its four
sizes; with n blocks of which k stay, these formulas give all of them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from kronpress.errors import KronpressError
from kronpress.step import Workbench
from kronpress.truncate.blocks import require_blocks
from kronpress.truncate.choice import CHOICES, Choice, Chosen, depth_of


class Formula(Choice):
    """Blocks by a formula of the depth n and the number k of blocks that stay."""

    @classmethod
    @abstractmethod
    def blocks(cls, depth: int, keep: int) -> Sequence[int]:
        """Return the blocks that stay, `keep` of `depth`."""

    def choose(self, bench: Workbench, *, keep: int | None) -> Chosen:
        """Return what the formula gives."""
        return Chosen(tuple(self.blocks(depth_of(bench.student), self.number(keep, bench.student))))


@CHOICES.enroll
class Alternate(Formula):
    """Evenly spaced from the first block on; the Short Study's best start, with half of the blocks every second one.

    >>> Alternate.blocks(12, 6)
    [0, 2, 4, 6, 8, 10]
    """

    kind: ClassVar[str] = "alt"

    @classmethod
    def blocks(cls, depth: int, keep: int) -> list[int]:
        """Return ⌊i·n/k⌋ for i = 0 … k - 1."""
        return [place * depth // keep for place in range(keep)]


@CHOICES.enroll
class Distil(Formula):
    """As `alt`, its upper half one block higher; the blocks with which DistilGPT2 began.

    >>> Distil.blocks(12, 6)
    [0, 2, 4, 7, 9, 11]
    """

    kind: ClassVar[str] = "distil"

    @classmethod
    def blocks(cls, depth: int, keep: int) -> list[int]:
        """Return ⌊i·n/k⌋, and one more from the middle on."""
        return [block + (2 * place >= keep) for place, block in enumerate(Alternate.blocks(depth, keep))]


@CHOICES.enroll
class BottomAndTop(Formula):
    """One half spaced from the bottom, the other from the top.

    >>> BottomAndTop.blocks(24, 6)
    [0, 4, 8, 15, 19, 23]
    """

    kind: ClassVar[str] = "3b3t"

    @classmethod
    def blocks(cls, depth: int, keep: int) -> list[int]:
        """Return ⌊i·n/k⌋, and from the middle on the mirror image of that."""
        spaced = Alternate.blocks(depth, keep)
        return [
            depth - 1 - spaced[keep - 1 - place] if 2 * place >= keep else block for place, block in enumerate(spaced)
        ]


@CHOICES.enroll
class Bottom(Formula):
    """Spaced over the lower half of the model, or the lowest ones where that has too few.

    >>> Bottom.blocks(24, 6)
    [0, 2, 4, 6, 8, 10]
    """

    kind: ClassVar[str] = "6b"

    @classmethod
    def blocks(cls, depth: int, keep: int) -> list[int]:
        """Return ⌊i·m/k⌋ with m = max(n/2, k)."""
        return [place * max(depth, 2 * keep) // (2 * keep) for place in range(keep)]


@CHOICES.enroll
class Top(Formula):
    """The mirror image of `6b`.

    >>> Top.blocks(24, 6)
    [13, 15, 17, 19, 21, 23]
    """

    kind: ClassVar[str] = "6t"

    @classmethod
    def blocks(cls, depth: int, keep: int) -> list[int]:
        """Return n - 1 minus what `6b` gives, from the bottom up."""
        return [depth - 1 - block for block in reversed(Bottom.blocks(depth, keep))]


@CHOICES.enroll
class Spread(Formula):
    """The first block, the last, and between them evenly; three blocks where no number is named.

    >>> Spread.blocks(12, 3)
    [0, 6, 11]
    """

    kind: ClassVar[str] = "3l"

    @classmethod
    def blocks(cls, depth: int, keep: int) -> list[int]:
        """Return i·(n - 1)/(k - 1), halves rounded up."""
        gaps = max(1, keep - 1)
        return [(2 * place * (depth - 1) + gaps) // (2 * gaps) for place in range(keep)]

    def count(self, keep: int | None) -> int:
        """Return how many blocks stay, by default 3."""
        return 3 if keep is None else keep


@CHOICES.enroll
class Listed(Choice):
    """The blocks of a list, counted from 0."""

    kind: ClassVar[str] = "listed"
    blocks: tuple[int, ...]

    def choose(self, bench: Workbench, *, keep: int | None) -> Chosen:
        """Return the list."""
        return Chosen(self.blocks)

    def count(self, keep: int | None) -> int:
        """Return how many it has."""
        return len(self.blocks)

    def check(self, bench: Workbench, *, keep: int | None) -> None:
        """Check that the model has the blocks, and that there are as many as a number says."""
        require_blocks(self.blocks, depth=depth_of(bench.student))
        if keep is not None and keep != len(self.blocks):
            raise KronpressError(f"keep: {keep} beside a list of {len(self.blocks)} blocks; leave keep out")
