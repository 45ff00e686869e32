"""A folder with what a teacher said of many examples: shards of rows, and an index that tells what they are of."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Int
from safetensors import safe_open
from torch import Tensor
from tqdm import tqdm

from kronpress.bars import Bar
from kronpress.checkpoint import files
from kronpress.errors import KronpressError

INDEX = "index.json"
_FORMAT = 2
SHARD_BYTES = 2**25
_PARTS = {
    "format": "format",
    "teacher": "teacher",
    "examples": "set of examples",
    "kept": "choice of what is kept",
    "columns": "size",
    "rows": "size",
}  # of a key, as messages call them

Rows: TypeAlias = Sequence[int]
Compute: TypeAlias = Callable[[Rows, Callable[[int], None]], Mapping[str, Tensor]]
"""(some rows, what to call with the number of rows done) → their columns, one row after the other."""


@dataclass(frozen=True)
class Column:
    """A tensor that is stored of every row.

    Attributes:
        dtype: of its numbers.
        shape: of one entry.
        lengths: how many entries each row has.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    lengths: Int[np.ndarray, " rows"]

    @property
    def entry_bytes(self) -> int:
        """What an entry takes on disk."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Contents:
    """What a store is of, and the form of what it holds.

    Attributes:
        teacher: SHA-256 of its weights.
        examples: SHA-256 of all that they hold.
        kept: what is kept of what the teacher says, as JSON values.
        columns: the tensors, by name.
        batches: rows that the teacher reads together, which are never torn apart; by default each by itself.
    """

    teacher: str
    examples: str
    kept: Mapping[str, Any]
    columns: Mapping[str, Column]
    batches: Sequence[Rows] | None = None

    @property
    def rows(self) -> int:
        """How many examples there are."""
        return len(next(iter(self.columns.values())).lengths)

    @cached_property
    def row_bytes(self) -> Int[np.ndarray, " rows"]:
        """What each row takes on disk."""
        sizes = [column.lengths.astype(np.int64) * column.entry_bytes for column in self.columns.values()]
        total: Int[np.ndarray, " rows"] = np.sum(sizes, axis=0)
        return total

    @cached_property
    def shards(self) -> Mapping[str, Rows]:
        """The rows in each file: batch after batch, until another one would make it too large."""
        shards: list[list[int]] = []
        size = 0
        for batch in self.batches if self.batches is not None else [[row] for row in range(self.rows)]:
            more = int(self.row_bytes[batch].sum())
            if not shards or size + more > SHARD_BYTES:
                shards.append([])
                size = 0
            shards[-1].extend(batch)
            size += more
        return {f"shard-{index:05d}.safetensors": rows for index, rows in enumerate(shards)}

    @cached_property
    def places(self) -> Mapping[int, tuple[str, int]]:
        """The file of each row, and the number of the row in it."""
        return {row: (name, place) for name, rows in self.shards.items() for place, row in enumerate(rows)}

    @cached_property
    def ends(self) -> Mapping[tuple[str, str], Int[np.ndarray, " rows"]]:
        """Where the entries of each row end, by file and column."""
        return {
            (name, label): np.cumsum(column.lengths[rows])
            for name, rows in self.shards.items()
            for label, column in self.columns.items()
        }

    @property
    def key(self) -> dict[str, Any]:
        """What tells this store from others, as JSON values."""
        columns = {
            label: [str(column.dtype).removeprefix("torch."), *column.shape, int(column.lengths.sum())]
            for label, column in self.columns.items()
        }
        return {
            "format": _FORMAT,
            "teacher": self.teacher,
            "examples": self.examples,
            "kept": dict(self.kept),
            "columns": columns,
            "rows": [len(rows) for rows in self.shards.values()],
        }


@dataclass(frozen=True)
class Store:
    """What a teacher said of many examples.

    Reading maps a file into memory for a moment, so that the memory needed does not grow with the store.
    """

    folder: Path
    contents: Contents

    @classmethod
    def open(cls, folder: Path, contents: Contents) -> Store:
        """Open a finished store.

        Raises:
            KronpressError: it is unfinished or damaged, or holds something else.
        """
        stored, digests = _read_index(folder)
        if stored is None:
            raise KronpressError(f"{folder} holds no stored teacher outputs; build them with the teacher")
        unlike = _unlike(contents.key, stored)
        if unlike is not None:
            raise KronpressError(f"the teacher outputs stored in {folder} are of another {unlike}; build others")
        damaged = [name for name in contents.shards if not _is_sound(folder / name, digests.get(name))]
        if damaged:
            raise KronpressError(f"{folder / damaged[0]} is missing or damaged; build it again to mend it")
        return cls(folder, contents)

    @classmethod
    def build(cls, folder: Path, contents: Contents, compute: Compute, *, unit: str) -> Store:
        """Ask the teacher for what is missing in a folder, and write it there.

        Shards that are damaged are computed again, and so is all where the folder holds something else; a line that is
        printed says so.

        Args:
            folder: for this store alone.
            contents: what is to be stored.
            compute: runs the teacher.
            unit: what a row is called in the progress bar.

        Raises:
            KronpressError: the disk has not enough space.
        """
        digests = _sound_shards(folder, contents)
        missing = {name: rows for name, rows in contents.shards.items() if name not in digests}
        if not missing:
            return cls(folder, contents)
        files.require_space(folder, needed=sum(int(contents.row_bytes[rows].sum()) for rows in missing.values()))
        folder.mkdir(parents=True, exist_ok=True)
        left = sum(map(len, missing.values()))
        with Bar(total=contents.rows, initial=contents.rows - left, desc="teacher outputs", unit=unit) as bar:
            for name, rows in missing.items():
                files.write_tensors(folder / name, compute(rows, bar.update))
                digests[name] = files.sha256(folder / name)
                files.write_json(folder / INDEX, {"key": contents.key, "shards": digests})
        return cls(folder, contents)

    @property
    def bytes(self) -> int:
        """What the files take on disk."""
        return sum((self.folder / name).stat().st_size for name in self.contents.shards)

    def __len__(self) -> int:
        return self.contents.rows

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        """Return the tensors of a row."""
        if not 0 <= row < len(self):
            raise IndexError(row)
        name, place = self.contents.places[row]
        with safe_open(self.folder / name, framework="pt") as shard:
            tensors = {}
            for label, column in self.contents.columns.items():
                end = int(self.contents.ends[name, label][place])
                tensors[label] = shard.get_slice(label)[end - int(column.lengths[row]) : end].clone()
        return tensors


def stored_key(folder: Path) -> dict[str, Any]:
    """Return the key in the index of a folder; an empty one where there is none."""
    return _read_index(folder)[0] or {}


def require_small(contents: Contents, *, max_bytes: int, what: str, remedy: str) -> None:
    """Check that a store would not be larger than allowed.

    Raises:
        KronpressError: the size, of `what` it is, the limit and the remedy.
    """
    needed = int(contents.row_bytes.sum())
    if needed > max_bytes:
        raise KronpressError(
            f"the stored teacher outputs would take {needed:,} bytes ({what}), and cache_max_bytes is {max_bytes:,}; "
            f"{remedy}"
        )


def _read_index(folder: Path) -> tuple[dict[str, Any] | None, dict[str, str]]:
    """Return the key in the index of a folder, None where there is none, and the digests of its shards."""
    try:
        index = files.read_json(folder / INDEX)
        return dict(index["key"]), dict(index["shards"])
    except (KronpressError, OSError, KeyError, TypeError, ValueError):
        return None, {}


def _unlike(key: Mapping[str, Any], stored: Mapping[str, Any] | None) -> str | None:
    """Say in what a key that was read from JSON differs; None where it does not."""
    return next((called for name, called in _PARTS.items() if (stored or {}).get(name) != key[name]), None)


def _sound_shards(folder: Path, contents: Contents) -> dict[str, str]:
    """Return the shards of the folder that need not be computed again, with their digests; remove what is of no use."""
    stored, digests = _read_index(folder)
    unlike = _unlike(contents.key, stored)
    if unlike is not None:
        if (folder / INDEX).exists():
            tqdm.write(f"warning: the teacher outputs stored in {folder} are of another {unlike}; they are built again")
        for path in folder.glob("shard-*.safetensors"):
            path.unlink()
        return {}
    sound = {}
    for name in contents.shards:
        if _is_sound(folder / name, digests.get(name)):
            sound[name] = digests[name]
        elif name in digests:
            tqdm.write(f"warning: {folder / name} is missing or damaged; it is computed again")
    return sound


def _is_sound(path: Path, digest: str | None) -> bool:
    return path.is_file() and files.sha256(path) == digest
