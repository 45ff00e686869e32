"""The documents that are compared: what they are compared by, from the files of all parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kronpress.data.cleaning.words import Hashes, Places
from kronpress.data.cleaning.work import Part

STAYS = -1
"""In the place of the document that one is a duplicate of, where it is none."""

AT_ONCE = 2_000_000
"""Documents that are sorted together."""

Shingles: TypeAlias = NDArray[np.uint32]
"""The set of shingles of one document, sorted."""


class Compared:
    """The compared documents of all parts, numbered in the order of the source."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = parts
        self.starts = np.cumsum([0, *(len(part.load("compared")) for part in parts)])
        self._opened: dict[int, Shingles] = {}

    @property
    def count(self) -> int:
        """How many there are."""
        return int(self.starts[-1])

    @property
    def sections(self) -> range:
        """The sections that documents are put into by their numbers, so that each is sorted in bounded memory."""
        return range(1 + self.count // AT_ONCE if self.parts else 0)

    def keys(self, section: int) -> tuple[Hashes, Places]:
        """Return the keys in one section and whose they are."""
        return _joined(self._chosen((part.load("keys") for part in self.parts), section))

    def band(self, number: int, section: int) -> tuple[Hashes, Places]:
        """Return the numbers of one band in one section and whose they are."""
        return _joined(self._chosen((part.load("bands")[number] for part in self.parts), section))

    def shingles(self, documents: Places) -> list[Shingles]:
        """Return the set of shingles of each of some documents; their files stay open until `close`."""
        homes = np.searchsorted(self.starts, documents, side="right") - 1
        starts = self._before[documents] - self._before[self.starts[homes]]
        ends = starts + self.lengths[documents]
        return [
            (self._opened[home] if home in self._opened else self._open(home))[start:end]
            for home, start, end in zip(homes.tolist(), starts.tolist(), ends.tolist(), strict=True)
        ]

    def close(self) -> None:
        """Let go of the shingles, whose files count as memory as far as they have been looked at."""
        self._opened.clear()

    @cached_property
    def lengths(self) -> Places:
        """How many shingles each has."""
        counts = [np.diff(part.load("bounds")) for part in self.parts]
        return np.concatenate([np.zeros(0, dtype=np.int64), *counts])

    @cached_property
    def _before(self) -> Places:
        return np.concatenate([[0], np.cumsum(self.lengths)])

    def _open(self, home: int) -> Shingles:
        self._opened[home] = self.parts[home].load("shingles")
        return self._opened[home]

    def _chosen(self, arrays: Iterator[NDArray[Any]], section: int) -> Iterator[tuple[NDArray[Any], Places]]:
        for start, values in zip(self.starts, arrays, strict=False):
            first = values if values.ndim == 1 else values[:, 0]
            chosen = np.flatnonzero(first % np.uint64(len(self.sections)) == section)
            yield values[chosen], start + chosen


def _joined(arrays: Iterator[tuple[NDArray[Any], Places]]) -> tuple[NDArray[Any], Places]:
    values, documents = zip(*arrays, strict=True)
    return np.concatenate(values), np.concatenate(documents)
