"""Which tokens a model reads at once, and which of them count: each token counts at most once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice

import torch
from jaxtyping import Int
from torch import Tensor

from kronpress.data import StoredTokens


@dataclass(frozen=True)
class Window:
    """What a model reads and what it is to predict; the first `skip` of its predictions do not count."""

    reads: Int[Tensor, " tokens"]
    targets: Int[Tensor, " predicted"]
    skip: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return what windows have in common that go through a model together."""
        return len(self.reads), len(self.targets), self.skip

    @property
    def highest(self) -> int:
        """Return the largest id."""
        return max(int(self.reads.max()), int(self.targets.max()))


def batches(windows: Iterable[Window], *, tokens: int) -> Iterator[list[Window]]:
    """Put neighbors of one shape together, up to a number of tokens."""
    for (length, *_), alike in groupby(windows, key=lambda window: window.shape):
        size = max(1, tokens // length)
        while batch := list(islice(alike, size)):
            yield batch


def slide(ids: Int[Tensor, " tokens"] | StoredTokens, *, size: int, stride: int, keep_rest: bool) -> Iterator[Window]:
    """Move a window of `size` tokens on by `stride`; the first token of the first window is never predicted.

    Where windows overlap, the tokens that an earlier one predicted are context only. Where they do not, no token has
    context from the window before, and the first one of each is context only. A shorter window at the end is kept
    or dropped.

    >>> import torch
    >>> [(w.reads.tolist(), w.targets.tolist()) for w in slide(torch.arange(7), size=4, stride=2, keep_rest=True)]
    [([0, 1, 2, 3], [1, 2, 3]), ([2, 3, 4, 5], [4, 5]), ([4, 5, 6], [6])]
    """
    seen = 0
    for start in range(0, len(ids), stride):
        stop = min(start + size, len(ids))
        first = max(seen, start + 1)
        if (stop - start < size and not keep_rest) or first >= stop:
            return
        yield Window(ids[start:stop], ids[first:stop], skip=first - 1 - start)
        seen = stop


def roll(ids: Int[Tensor, " tokens"], *, size: int, stride: int) -> Iterator[Window]:
    """Predict every token but the first, which is a mark that the text begins; read `size` tokens at once.

    The first window predicts `size` tokens, the later ones `stride`, the last what is left, and each reads back as far
    as it can. With `stride=size` this is how lm-eval scores a document.

    >>> import torch
    >>> [(w.reads.tolist(), w.targets.tolist()) for w in roll(torch.arange(7), size=4, stride=4)]
    [([0, 1, 2, 3], [1, 2, 3, 4]), ([2, 3, 4, 5], [5, 6])]
    """
    first = 1
    while first < len(ids):
        stop = min(len(ids), first + (size if first == 1 else stride))
        start = max(0, stop - 1 - size)
        yield Window(ids[start : stop - 1], ids[first:stop], skip=first - 1 - start)
        first = stop


def begun(windows: Iterable[Window], *, first: int) -> Iterator[Window]:
    """Put the token `first` before what each window reads, unless it is there already; what counts stays the same.

    >>> import torch
    >>> ids = torch.arange(4)
    >>> [(w.reads.tolist(), w.targets.tolist(), w.skip) for w in begun(roll(ids, size=2, stride=2), first=0)]
    [([0, 1], [1, 2], 0), ([0, 1, 2], [3], 2)]
    """
    for window in windows:
        there = int(window.reads[0]) == first
        reads = window.reads if there else torch.cat([window.reads.new_tensor([first]), window.reads])
        yield Window(reads, window.targets, window.skip + (not there))
