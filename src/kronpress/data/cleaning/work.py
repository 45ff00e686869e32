"""The folder in which a cleaning keeps what it needs to go on, and what has been done so far."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from kronpress import disk
from kronpress.records import CleaningExample

NAME = ".cleaning"
"""The work folder in the folder of the result; it goes when the result is whole."""


class Went(BaseModel):
    """How much went for one reason; `bytes` are of text."""

    model_config = ConfigDict(frozen=True)
    documents: int = 0
    bytes: int = 0


class PartNote(BaseModel):
    """What is known of a part of the text that has been read; written when all files of the part are.

    Attributes:
        records: whether its documents are records.
        documents: that were read, and `bytes` of text in them.
        last: digest of the last one, by which a changed source is noticed.
        went: reason to how much went for it.
        examples: the first documents that went, a few for each reason.
        seconds: that it took.
    """

    model_config = ConfigDict(frozen=True)
    records: bool
    documents: int
    bytes: int
    last: str
    went: dict[str, Went]
    examples: tuple[CleaningExample, ...]
    seconds: float


@dataclass(frozen=True)
class Part:
    """The files of one part: documents that passed the filters, and what they are compared by."""

    folder: Path
    number: int

    @property
    def spool(self) -> Path:
        """The documents as they will be written, one behind the other."""
        return self._path("spool")

    @property
    def note(self) -> Path:
        """What is known of the part; it is whole where this file is."""
        return self._path("json")

    @property
    def places(self) -> Path:
        """Where each document comes from."""
        return self._path("places.json")

    def array(self, name: str) -> Path:
        """Return where an array lies.

        `spans` are the bounds of the documents in the spool, `sizes` their bytes of text, `compared` the numbers of
        those that are compared; `keys`, `bands`, `shingles` and `bounds` (of the shingles) are of the compared ones.
        """
        return self._path(f"{name}.npy")

    def load(self, name: str) -> NDArray[Any]:
        """Open an array without reading it."""
        return np.asarray(np.load(self.array(name), mmap_mode="r"))

    def read_note(self) -> PartNote:
        """Read what is known of the part."""
        return PartNote.model_validate(disk.read_json(self.note))

    def _path(self, ending: str) -> Path:
        return self.folder / f"{self.number:05d}.{ending}"


@dataclass(frozen=True)
class Work:
    """The work folder."""

    folder: Path

    @property
    def begun(self) -> Path:
        """What the cleaning began with."""
        return self.folder / "begun.json"

    @property
    def all_read(self) -> Path:
        """There once the whole source has been read."""
        return self.folder / "read.json"

    @property
    def decision(self) -> Path:
        """Which documents are duplicates, and of which."""
        return self.folder / "duplicates.npz"

    def band(self, number: int) -> Path:
        """Return where it stands which documents agree in a band."""
        return self.folder / f"band-{number:03d}.npy"

    def block(self, number: int) -> Path:
        """Return where the verdicts on a block of documents lie, once they have been compared."""
        return self.folder / f"block-{number:05d}.npy"

    def part(self, number: int) -> Part:
        """Return a part, which need not be there yet."""
        return Part(self.folder, number)

    def parts(self) -> list[Part]:
        """Return the parts that are whole, in the order of the source."""
        return list(self._whole())

    def _whole(self) -> Iterator[Part]:
        part = self.part(0)
        while part.note.exists():
            yield part
            part = self.part(part.number + 1)


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array, whole or not at all."""
    with disk.replacing(path) as partial, partial.open("wb") as stream:
        np.save(stream, array, allow_pickle=False)


def save_arrays(path: Path, **arrays: NDArray[Any]) -> None:
    """Write arrays into one file, whole or not at all."""
    with disk.replacing(path) as partial, partial.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)
