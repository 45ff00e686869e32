"""The last pass: write what stays, and say what went."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kronpress import disk
from kronpress.data.cleaning.compared import STAYS
from kronpress.data.cleaning.documents import Document
from kronpress.data.cleaning.reading import EXAMPLES, example
from kronpress.data.cleaning.settings import Cleaning
from kronpress.data.cleaning.work import Part, PartNote, Work
from kronpress.records import CleaningExample, CleaningRow

NEAR = "near duplicate"
"""What reports call duplicates that are similar."""


@dataclass(frozen=True)
class Outcome:
    """What is to be written, and what went for which reason."""

    settings: Cleaning
    work: Work

    @cached_property
    def parts(self) -> list[Part]:
        """All parts, in the order of the source."""
        return self.work.parts()

    @cached_property
    def notes(self) -> list[PartNote]:
        """What is known of each part."""
        return [part.read_note() for part in self.parts]

    @cached_property
    def decided(self) -> dict[str, NDArray[Any]]:
        """For each compared document the one that stays in its place, and whether it is exactly that one."""
        with np.load(self.work.decision) as arrays:
            return dict(arrays)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """How many documents are compared before each part, and in all."""
        return np.cumsum([0, *(len(part.load("compared")) for part in self.parts)])

    def kept(self, part: Part) -> NDArray[np.bool_]:
        """Say of each document of a part whether it stays."""
        kept = np.ones(len(part.load("sizes")), dtype=np.bool_)
        went = self.decided["stays"][self.starts[part.number] : self.starts[part.number + 1]] != STAYS
        kept[part.load("compared")[went]] = False
        return kept

    def shards(self) -> Iterator[tuple[Part, str]]:
        """Yield each part of which something stays, and what its file is called."""
        for part, note in zip(self.parts, self.notes, strict=True):
            if self.kept(part).any():
                yield part, shard_name(part.number, records=note.records)

    def write(self, folder: Path) -> None:
        """Write the files that are not there yet."""
        for part, name in self.shards():
            if not (folder / name).exists():
                with disk.replacing(folder / name) as partial:
                    partial.write_bytes(_without(part, self.kept(part)))

    def rows(self) -> tuple[CleaningRow, tuple[CleaningRow, ...], CleaningRow]:
        """Return how much there was, how much went for each reason, and how much stayed."""
        read = CleaningRow("read", sum(note.documents for note in self.notes), sum(note.bytes for note in self.notes))
        went = [self._went(reason) for reason in ("html", *self.settings.every_filter())]
        every = [*went, *self._duplicates()]
        stayed = [read.documents - sum(row.documents for row in every), read.bytes - sum(row.bytes for row in every)]
        return read, tuple(row for row in every if row.documents), CleaningRow("stayed", *stayed)

    def examples(self) -> tuple[CleaningExample, ...]:
        """Return the first documents that went for each reason, those of duplicates last."""
        shown: Counter[str] = Counter()
        first = []
        for went in (went for note in self.notes for went in note.examples):
            shown[went.reason] += 1
            first += [went] if shown[went.reason] <= EXAMPLES else []
        return (*sorted(first, key=lambda went: [*shown].index(went.reason)), *self._duplicate_examples())

    @property
    def seconds(self) -> float:
        """What reading took."""
        return sum(note.seconds for note in self.notes)

    @property
    def _reasons(self) -> dict[str, NDArray[np.bool_]]:
        exact, stays = self.decided["exact"], self.decided["stays"]
        return {self.settings.duplicates.reason: exact, NEAR: ~exact & (stays != STAYS)}

    def _went(self, reason: str) -> CleaningRow:
        went = [note.went[reason] for note in self.notes if reason in note.went]
        return CleaningRow(reason, sum(row.documents for row in went), sum(row.bytes for row in went))

    def _duplicates(self) -> Iterator[CleaningRow]:
        sizes = [part.load("sizes")[part.load("compared")] for part in self.parts]
        every = np.concatenate([np.zeros(0, dtype=np.int64), *sizes])
        for reason, flags in self._reasons.items():
            yield CleaningRow(reason, int(flags.sum()), int(every[flags].sum()))

    def _duplicate_examples(self) -> Iterator[CleaningExample]:
        for reason, flags in self._reasons.items():
            for index in islice(np.flatnonzero(flags), EXAMPLES):
                stays = self._document(int(self.decided["stays"][index]))
                yield example(reason, self._document(int(index)), stays=stays.place)

    def _document(self, compared: int) -> Document:
        number = int(np.searchsorted(self.starts, compared, side="right")) - 1
        part = self.parts[number]
        index = int(part.load("compared")[compared - self.starts[number]])
        start, end = part.load("spans")[index : index + 2].tolist()
        with part.spool.open("rb") as stream:
            stream.seek(start)
            text = stream.read(end - start).decode()
        document = Document(text, disk.read_json(part.places)[index])
        return document._replace(text=json.loads(text)["text"]) if self.notes[number].records else document


def shard_name(number: int, *, records: bool) -> str:
    """Return what the file of a part is called."""
    return f"{number:05d}{'.jsonl' if records else '.txt'}"


def _without(part: Part, kept: NDArray[np.bool_]) -> bytes:
    """Return the documents that stay, with one line end behind the last."""
    spool, spans = memoryview(part.spool.read_bytes()), part.load("spans")
    edges = np.flatnonzero(np.diff(np.concatenate([[False], kept, [False]])))  # beginnings and ends of what stays
    bounds = spans[edges].reshape(-1, 2).tolist()
    written = b"".join(spool[start:end] for start, end in bounds)
    return written.rstrip(b"\n") + b"\n"
