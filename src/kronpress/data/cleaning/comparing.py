"""The second pass: find the documents that are duplicates of earlier ones, band by band."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kronpress.bars import Bar
from kronpress.data.cleaning.duplicates import Duplicates, NearDuplicates
from kronpress.data.cleaning.words import Hashes, Places, first_of_runs
from kronpress.data.cleaning.work import Part, Work, save_arrays

Pairs: TypeAlias = NDArray[np.uint64]
"""Two compared documents in one number: the later in the upper half, the earlier in the lower."""

STAYS = -1
"""In the place of the document that one is a duplicate of, where it is none."""

AT_ONCE = 2_000_000
"""Documents that are sorted together, and shingles that are compared together."""

_HALF = np.uint64(32)
_LOWER = np.uint64(0xFFFFFFFF)


class Compared:
    """The compared documents of all parts, numbered in the order of the source."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = parts
        self.starts = np.cumsum([0, *(len(part.load("compared")) for part in parts)])

    @property
    def count(self) -> int:
        """How many there are."""
        return int(self.starts[-1])

    @property
    def sections(self) -> int:
        """Into how many sections documents are put by their numbers, so that each is sorted in bounded memory."""
        return 1 + self.count // AT_ONCE

    def keys(self, section: int) -> Iterator[tuple[Hashes, Places]]:
        """Yield the keys in one section and whose they are, for each part."""
        for start, part in zip(self.starts, self.parts, strict=False):
            keys = part.load("keys")
            chosen = np.flatnonzero(keys[:, 0] % np.uint64(self.sections) == section)
            yield keys[chosen], start + chosen

    def band(self, number: int, section: int) -> Iterator[tuple[Hashes, Places]]:
        """Yield the numbers of one band in one section and whose they are, for each part."""
        for start, part in zip(self.starts, self.parts, strict=False):
            values = part.load("bands")[number]
            chosen = np.flatnonzero(values % np.uint64(self.sections) == section)
            yield values[chosen], start + chosen

    @cached_property
    def lengths(self) -> Places:
        """How many shingles each has."""
        counts = [np.diff(part.load("bounds")) for part in self.parts]
        return np.concatenate([np.zeros(0, dtype=np.int64), *counts])

    def shingles(self, documents: Places) -> Hashes:
        """Return the shingles of documents, each set behind the number of its document in the list."""
        homes = np.searchsorted(self.starts, documents, side="right") - 1
        loaded = {home: (self.parts[home].load("shingles"), self.parts[home].load("bounds")) for home in set(homes)}
        sets = []
        for home, local in zip(homes, (documents - self.starts[homes]).tolist(), strict=True):
            values, bounds = loaded[home]
            sets.append(values[bounds[local] : bounds[local + 1]])
        owners = np.repeat(np.arange(len(documents), dtype=np.uint64), self.lengths[documents])
        return owners << _HALF | np.concatenate(sets).astype(np.uint64)


def decide(rule: Duplicates, work: Work) -> None:
    """Find out which documents are duplicates, and keep it in the work folder.

    A document is near to an earlier one that stays, or exactly that of an earlier one: so what goes always has a
    duplicate that stays.
    """
    if work.decision.exists():
        return
    compared = Compared(work.parts())
    exact = exact_duplicates(compared) if rule.compares else np.full(compared.count, STAYS)
    stays = exact.copy()
    if isinstance(rule, NearDuplicates):
        pairs = _similar(compared, rule, work, alone=exact == STAYS)
        for later, earlier in zip((pairs >> _HALF).tolist(), (pairs & _LOWER).tolist(), strict=True):
            if stays[later] == STAYS and stays[earlier] == STAYS:
                stays[later] = earlier
        moved = (stays != STAYS) & (stays[stays] != STAYS)  # the exact one before it went as a near one
        stays[moved] = stays[stays[moved]]
    save_arrays(work.decision, stays=stays, exact=exact != STAYS)


def exact_duplicates(compared: Compared) -> Places:
    """Return for each document the first with the same key, or STAYS for the first itself."""
    stays = np.full(compared.count, STAYS)
    for section in range(compared.sections if compared.parts else 0):
        keys, documents = _joined(compared.keys(section))
        order = np.lexsort((keys[:, 1], keys[:, 0]))
        keys, documents = keys[order], documents[order]
        heads = _heads(first_of_runs(keys[:, 0]) | first_of_runs(keys[:, 1]))
        later = heads != np.arange(len(heads))
        stays[documents[later]] = documents[heads[later]]
    return stays


def candidates(compared: Compared, band: int, *, alone: NDArray[np.bool_]) -> Pairs:
    """Return pairs that agree in a band: each document with the first such one, and with the one before it.

    Args:
        compared: the documents.
        band: its number.
        alone: which documents are no exact duplicates; the others are left out.
    """
    pairs: list[Pairs] = [np.zeros(0, dtype=np.uint64)]
    for section in range(compared.sections if compared.parts else 0):
        values, documents = _joined(compared.band(band, section))
        values, documents = values[alone[documents]], documents[alone[documents]]
        order = np.argsort(values, kind="stable")
        documents = documents[order].astype(np.uint64)
        first = first_of_runs(values[order])
        later = np.flatnonzero(~first)
        for earlier in (_heads(first)[later], later - 1):
            pairs.append(np.asarray(documents[later] << _HALF | documents[earlier], dtype=np.uint64))
    return np.unique(np.concatenate(pairs))


def jaccard(compared: Compared, pairs: Pairs) -> NDArray[np.float64]:
    """Return the exact Jaccard similarity of the shingles of each pair."""
    sides = [compared.shingles(side.astype(np.int64)) for side in (pairs >> _HALF, pairs & _LOWER)]
    both = np.sort(np.concatenate(sides))
    common = both[1:][both[1:] == both[:-1]] >> _HALF
    shared = np.bincount(common.astype(np.int64), minlength=len(pairs))
    lengths = sum(compared.lengths[side.astype(np.int64)] for side in (pairs >> _HALF, pairs & _LOWER))
    return np.asarray(shared / (lengths - shared))


def _similar(compared: Compared, rule: NearDuplicates, work: Work, *, alone: NDArray[np.bool_]) -> Pairs:
    """Return the pairs that are similar, those of each band kept as soon as they have been compared."""
    looked_at, similar = (np.zeros(0, dtype=np.uint64) for _ in range(2))
    for band in Bar(range(rule.bands), desc="comparing", unit="band", leave=False):
        path = work.band(band)
        if not path.exists():
            fresh = np.setdiff1d(candidates(compared, band, alone=alone), looked_at, assume_unique=True)
            near = np.concatenate([np.zeros(0, dtype=np.bool_), *_verdicts(compared, fresh, rule.threshold)])
            save_arrays(path, similar=fresh[near], other=fresh[~near])
        with np.load(path) as arrays:
            similar = np.union1d(similar, arrays["similar"])
            looked_at = np.union1d(looked_at, np.concatenate([arrays["similar"], arrays["other"]]))
    return similar


def _verdicts(compared: Compared, pairs: Pairs, threshold: float) -> Iterator[NDArray[np.bool_]]:
    """Say of each pair, some at a time, whether it is similar."""
    sides = [compared.lengths[side.astype(np.int64)] for side in (pairs >> _HALF, pairs & _LOWER)]
    total = np.cumsum(sides[0] + sides[1])
    start = 0
    while start < len(pairs):
        before = total[start - 1] if start else 0
        end = max(start + 1, int(np.searchsorted(total, before + AT_ONCE, side="right")))
        yield jaccard(compared, pairs[start:end]) >= threshold - 1e-9
        start = end


def _joined(arrays: Iterator[tuple[NDArray[Any], Places]]) -> tuple[NDArray[Any], Places]:
    values, documents = zip(*arrays, strict=True)
    return np.concatenate(values), np.concatenate(documents)


def _heads(first: NDArray[np.bool_]) -> Places:
    """Return for each place the last one before it, or itself, that is the first of a run."""
    return np.asarray(np.maximum.accumulate(np.where(first, np.arange(len(first)), 0)))
