"""Near duplicates: one document after the other is compared with the earlier ones that stay and agree in a band."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from kronpress.bars import Bar
from kronpress.data.cleaning.compared import STAYS, Compared, Shingles
from kronpress.data.cleaning.duplicates import NearDuplicates
from kronpress.data.cleaning.words import Places, first_of_runs
from kronpress.data.cleaning.work import Work, save_array

BLOCK = 8192
"""Documents whose verdicts are kept together, so that an interrupted comparison goes on behind them."""

Runs = NDArray[np.uint32]
"""Documents that agree with others in a band, in their order, and below each the number of its run."""

_REMAINDERS = 2**16
_LOWEST = np.uint32(_REMAINDERS - 1)


def near_duplicates(compared: Compared, rule: NearDuplicates, work: Work, *, alone: NDArray[np.bool_]) -> Places:
    """Return for each document the first earlier one that it is similar to and that stays, or STAYS.

    Args:
        compared: the documents.
        rule: what is similar.
        work: keeps what has been done.
        alone: which documents are no exact duplicates; the others are left out.
    """
    bands = [_kept_runs(compared, band, work, alone=alone) for band in _bar(rule.bands, "sorting", "band")]
    leaders, stays = Leaders(bands, most=rule.latest), np.full(compared.count, STAYS)
    for block in _bar(-(-compared.count // BLOCK), "comparing", "block"):
        start, end = block * BLOCK, (block + 1) * BLOCK
        path = work.block(block)
        decided = path.exists()
        if decided:
            stays[start:end] = np.load(path)
        for document, runs in leaders.runs(start, end):
            if not decided:
                stays[document] = _first_similar(compared, document, leaders.of(runs), threshold=rule.threshold)
            if stays[document] == STAYS:
                leaders.add(document, runs)
        compared.close()
        if not decided:
            save_array(path, stays[start:end])
    return stays


def runs_of(compared: Compared, band: int, *, alone: NDArray[np.bool_]) -> Runs:
    """Return the documents that agree with others in a band; `alone` as for `near_duplicates`."""
    documents, numbers, count = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)], 0
    for section in compared.sections:
        values, owners = compared.band(band, section)
        values, owners = values[alone[owners]], owners[alone[owners]]
        order = np.argsort(values, kind="stable")
        run = np.cumsum(first_of_runs(values[order])) - 1
        several = np.bincount(run) > 1
        agree = several[run]
        documents.append(owners[order][agree])
        numbers.append((count + np.cumsum(several) - 1)[run[agree]])
        count += int(several.sum())
    joined = np.stack([np.concatenate(documents), np.concatenate(numbers)])
    return joined[:, np.argsort(joined[0])].astype(np.uint32)


class Leaders:
    """For each run of each band the latest of its documents that stay, `most` of them."""

    def __init__(self, bands: Sequence[Runs], *, most: int) -> None:
        sizes = [np.bincount(band[1]) for band in bands]
        self.bands = bands
        self.offsets = np.cumsum([0, *map(len, sizes)])
        self.room = np.minimum(np.concatenate(sizes), most).astype(np.int32)
        self.starts = np.cumsum(self.room, dtype=np.int64) - self.room
        self.counts = np.zeros_like(self.room)
        self.places = np.zeros(int(self.room.sum()), dtype=np.uint32)

    def runs(self, start: int, end: int) -> Iterator[tuple[int, Places]]:
        """Yield the documents from `start` on, before `end`, that agree with others, and the runs of each."""
        edges = np.array([start, end], dtype=np.uint32)
        spans = [slice(*np.searchsorted(band[0], edges)) for band in self.bands]
        documents = np.concatenate([band[0, span] for band, span in zip(self.bands, spans, strict=True)])
        numbers = [
            offset + band[1, span].astype(np.int64)
            for offset, band, span in zip(self.offsets, self.bands, spans, strict=False)
        ]
        order = np.argsort(documents, kind="stable")
        documents, joined = documents[order], np.concatenate(numbers)[order]
        firsts = np.flatnonzero(first_of_runs(documents))
        yield from zip(documents[firsts].tolist(), np.split(joined, firsts[1:]) if len(firsts) else (), strict=True)

    def of(self, runs: Places) -> Places:
        """Return the documents that lead some runs, in their order."""
        starts = self.starts[runs]
        ends = starts + np.minimum(self.counts[runs], self.room[runs])
        leading = [self.places[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
        return np.unique(np.concatenate(leading)).astype(np.int64)

    def add(self, document: int, runs: Places) -> None:
        """Let a document lead its runs, in the place of the first leader where there are enough."""
        self.places[self.starts[runs] + self.counts[runs] % self.room[runs]] = document
        self.counts[runs] += 1


def similar(one: Shingles, others: Sequence[Shingles], *, threshold: float) -> Iterator[int]:
    """Yield the places of the sets whose exact Jaccard similarity to one set is at least `threshold`.

    The last 16 bits of the shingles are compared first. They say how many are common at most.
    """
    table = np.zeros(_REMAINDERS, dtype=np.bool_)
    table[one & _LOWEST] = True
    sizes = np.fromiter(map(len, others), dtype=np.int64, count=len(others))
    hits = np.concatenate([[0], np.cumsum(table[np.concatenate(others) & _LOWEST], dtype=np.int32)])
    ends = np.cumsum(sizes)
    share = (threshold - 1e-9) / (1 + threshold)  # of both sizes together, that is common at the threshold
    needed = np.maximum(share * (len(one) + sizes), 1)
    for index in np.flatnonzero(hits[ends] - hits[ends - sizes] >= needed).tolist():
        if len(np.intersect1d(one, others[index], assume_unique=True)) >= needed[index]:
            yield index


def _first_similar(compared: Compared, document: int, leaders: Places, *, threshold: float) -> int:
    length, lengths = compared.lengths[document], compared.lengths[leaders]
    leaders = leaders[np.minimum(length, lengths) >= (threshold - 1e-9) * np.maximum(length, lengths)]
    if not len(leaders):
        return STAYS
    one, *others = compared.shingles(np.append(document, leaders))
    first = next(similar(one, others, threshold=threshold), None)
    return STAYS if first is None else int(leaders[first])


def _kept_runs(compared: Compared, band: int, work: Work, *, alone: NDArray[np.bool_]) -> Runs:
    """Return the runs of a band from a file, which is made if it is not there."""
    path = work.band(band)
    if not path.exists():
        save_array(path, runs_of(compared, band, alone=alone))
    runs: Runs = np.load(path)
    return runs


def _bar(count: int, title: str, unit: str) -> Bar:
    return Bar(range(count), desc=title, unit=unit, leave=False)
