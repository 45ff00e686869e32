"""The first pass: read the source, drop HTML and bad text, and keep what the rest is compared by."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kronpress import disk
from kronpress.bars import Bar
from kronpress.data.cleaning.batch import CHARACTERS, Batch, Flags, batches
from kronpress.data.cleaning.documents import BETWEEN, Document, documents_of, file_states
from kronpress.data.cleaning.duplicates import NearDuplicates
from kronpress.data.cleaning.settings import Cleaning
from kronpress.data.cleaning.work import Part, PartNote, Went, Work
from kronpress.errors import KronpressError, shown
from kronpress.records import CleaningExample

EXAMPLES = 3
"""Documents shown of each reason."""

_SHOWN = 200  # characters of an example
_MEGABYTE = 1_000_000

_EMPTY: Mapping[str, NDArray[Any]] = {
    "spans": np.zeros(0, dtype=np.int64),
    "sizes": np.zeros(0, dtype=np.int64),
    "compared": np.zeros(0, dtype=np.int64),
    "keys": np.zeros((0, 2), dtype=np.uint64),
    "shingles": np.zeros(0, dtype=np.uint32),
    "bounds": np.zeros(0, dtype=np.int64),
}  # what a part without documents has; bands are as many as the rule has

Rule: TypeAlias = tuple[str, Callable[[Batch], Flags]]
"""The reason that reports give, and what says which documents go for it."""


def read(source: str, settings: Cleaning, work: Work) -> None:
    """Read a source into parts, behind those that are whole already.

    Raises:
        KronpressError: as `documents_of`; or the source is empty, or is not what it was when the cleaning began.
    """
    if work.all_read.exists():
        return
    whole = [part.read_note() for part in work.parts()]
    documents = documents_of(source, unit=settings.unit)
    _skip(documents, whole, source=source)
    rules, gathered = _rules(settings), None
    done = sum(note.bytes for note in whole)
    progress = Bar(desc="reading", unit="megabyte", initial=done // _MEGABYTE, total=_megabytes(source), leave=False)
    number = len(whole)
    with progress:
        for batch in batches(documents, size=min(CHARACTERS, int(settings.shard_megabytes * _MEGABYTE))):
            if gathered is not None and gathered.ends_before(batch):
                gathered.write()
                gathered, number = None, number + 1
            gathered = gathered or _Gathered(work.part(number), settings, rules, records=batch.records)
            gathered.add(batch)
            done += sum(_sizes(batch.texts))
            progress.update(done // _MEGABYTE - progress.n)
        if gathered is not None:
            gathered.write()
    if gathered is None and not whole:
        raise KronpressError(f"the text {shown(source)} is empty; name a file or folder with text in it")
    disk.write_json(work.all_read, {"parts": len(work.parts())})


def example(reason: str, document: Document, *, stays: str | None = None) -> CleaningExample:
    """Return a document as reports show it; `stays` is the place of that which it is a duplicate of."""
    return CleaningExample(reason, document.place, document.text.strip()[:_SHOWN], stays)


def _skip(documents: Iterator[Document], whole: Sequence[PartNote], *, source: str) -> None:
    """Pass over what is in whole parts already, and check that it still ends in the same document."""
    read = sum(note.documents for note in whole)
    last = next(islice(documents, read - 1, None), None) if read else None
    if read and (last is None or _digest(last.text) != whole[-1].last):
        raise KronpressError(
            f"{shown(source)} is no longer the text that the cleaning began with; clean it into a new folder"
        )


def _megabytes(source: str) -> int | None:
    """Return how much text a source has, if that is known before it is read."""
    states = file_states(source)
    packed = any(name.lower().endswith((".gz", ".parquet")) for name in states)
    return None if packed or not states else sum(size for size, _ in states.values()) // _MEGABYTE


def _rules(settings: Cleaning) -> list[Rule]:
    def html(batch: Batch) -> Flags:
        return np.fromiter(map(settings.html.drops, batch.texts), dtype=np.bool_)

    return [("html", html), *((reason, rule.drops) for reason, rule in settings.every_filter().items())]


class _Gathered:
    """A part while it is gathered."""

    def __init__(self, part: Part, settings: Cleaning, rules: Sequence[Rule], *, records: bool) -> None:
        self.part, self.settings, self.rules, self.records = part, settings, rules, records
        self.between = "\n" if records else BETWEEN[settings.unit]
        self.went: dict[str, Counter[str]] = {}
        self.examples: list[CleaningExample] = []
        self.documents = self.bytes = self.kept = 0
        self.last, self.started = "", time.perf_counter()
        self.places: list[str] = []
        self.arrays: dict[str, list[NDArray[Any]]] = {}
        part.folder.mkdir(parents=True, exist_ok=True)
        self.spool = part.spool.open("wb")

    def ends_before(self, batch: Batch) -> bool:
        """Say whether a batch belongs to the next part."""
        large = self.bytes >= self.settings.shard_megabytes * _MEGABYTE
        return large or self.records != batch.records

    def add(self, batch: Batch) -> None:
        """Drop what goes and append what stays."""
        self.last = batch.texts[-1]
        self.documents += len(batch.texts)
        self.bytes += sum(_sizes(batch.texts))
        for reason, drops in self.rules:
            flags = drops(batch)
            if flags.any():
                self._count(reason, batch.where(flags))
                batch = batch.where(~flags)
            if not batch.documents:
                return
        self._append(batch)

    def _count(self, reason: str, dropped: Batch) -> None:
        counter = self.went.setdefault(reason, Counter())
        room = max(0, EXAMPLES - counter["documents"])
        self.examples += [example(reason, document) for document in dropped.documents[:room]]
        counter.update(documents=len(dropped.texts), bytes=sum(_sizes(dropped.texts)))

    def _append(self, batch: Batch) -> None:
        written = [(_line(document) + self.between).encode() for document in batch.documents]
        self.spool.write(b"".join(written))
        self.places += [document.place for document in batch.documents]
        self._keep("spans", np.fromiter(map(len, written), dtype=np.int64))
        self._keep("sizes", np.fromiter(_sizes(batch.texts), dtype=np.int64))
        if self.settings.duplicates.compares:
            self._compare(batch)
        self.kept += len(written)

    def _compare(self, batch: Batch) -> None:
        rule = self.settings.duplicates
        takes = rule.takes(batch)
        if not takes.any():
            return
        batch = batch.where(takes)
        self._keep("compared", self.kept + np.flatnonzero(takes))
        self._keep("keys", rule.keys(batch))
        if isinstance(rule, NearDuplicates):
            shingles = rule.shingles(batch)
            self._keep("shingles", shingles.hashes.astype(np.uint32))
            self._keep("bounds", shingles.counts)
            self._keep("bands", rule.sketch(shingles))

    def _keep(self, name: str, values: NDArray[Any]) -> None:
        self.arrays.setdefault(name, []).append(values)

    def write(self) -> None:
        """Write the part, what is known of it last."""
        self.spool.close()
        disk.write_json(self.part.places, self.places)
        rule = self.settings.duplicates
        bands = np.zeros((0, rule.bands if isinstance(rule, NearDuplicates) else 0), dtype=np.uint64)
        for name, empty in {**_EMPTY, "bands": bands}.items():
            joined = np.concatenate([empty, *self.arrays.pop(name, ())])
            if name in ("spans", "bounds"):  # they were lengths until now
                joined = np.concatenate([[0], np.cumsum(joined)])
            np.save(self.part.array(name), joined if name != "bands" else np.ascontiguousarray(joined.T))
        went = {reason: Went(**counter) for reason, counter in self.went.items()}
        note = PartNote(
            records=self.records,
            documents=self.documents,
            bytes=self.bytes,
            last=_digest(self.last),
            went=went,
            examples=tuple(self.examples),
            seconds=time.perf_counter() - self.started,
        )
        disk.write_json(self.part.note, note.model_dump(mode="json"))


def _line(document: Document) -> str:
    """Return a document as it is written."""
    return document.text if document.record is None else document.record


def _sizes(texts: Sequence[str]) -> Iterator[int]:
    return (len(text) if text.isascii() else len(text.encode()) for text in texts)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
