"""The token ids of large texts, in files of the cache: made once, and read a window at a time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from functools import cached_property
from itertools import accumulate, islice
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kronpress.bars import Bar
from kronpress.checkpoint import files
from kronpress.data.cached import cached, key_of, making
from kronpress.data.corpus import Corpus, FilePart
from kronpress.data.tokens import AT_ONCE, chunking, chunks, count_of_windows, ids_of, require_known, tokenizer_digest
from kronpress.errors import KronpressError

SHARD = 16 * 2**20
"""Characters of text whose ids make up a file, or some more: what a killed process has to do again."""

_INDEX = "index.json"
_COUNTED = 2**22  # ids at once
_CHARACTERS_A_TOKEN = 3  # or more, to reckon the space that is needed


@dataclass(frozen=True)
class Shard:
    """A file of ids.

    Attributes:
        tokens: how many.
        stop: the byte of the text behind its last one.
        highest: the largest id.
    """

    tokens: int
    stop: int
    highest: int


@dataclass(frozen=True)
class StoredTokens:
    """The ids of a text, or of its beginning, in files; a slice of them is read when it is asked for.

    Attributes:
        format: of an id in the files, as numpy calls it.
    """

    folder: Path
    format: str
    shards: tuple[Shard, ...]

    @cached_property
    def starts(self) -> list[int]:
        """Return how many ids stand before each file, and how many there are."""
        return list(accumulate((shard.tokens for shard in self.shards), initial=0))

    @property
    def highest(self) -> int:
        """Return the largest id."""
        return max((shard.highest for shard in self.shards), default=0)

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, place: slice) -> Int[Tensor, " tokens"]:
        start, stop, step = place.indices(len(self))
        assert step == 1, "ids are read in a row"
        parts = [torch.empty(0, dtype=torch.long)]
        number = bisect_right(self.starts, start) - 1
        while start < stop:
            end = min(stop, self.starts[number + 1])
            parts.append(self._read(number, start - self.starts[number], count=end - start))
            start, number = end, number + 1
        return torch.cat(parts)

    def counts(self, rows: int) -> Int[Tensor, " rows"]:
        """Return how often each of the ids below `rows` stands here; there are more where the text has larger ids."""
        counts = torch.zeros(max(rows, 1 + self.highest), dtype=torch.long)
        for start in range(0, len(self), _COUNTED):
            counts += torch.bincount(self[start : start + _COUNTED], minlength=len(counts))
        return counts

    def _read(self, number: int, start: int, *, count: int) -> Int[Tensor, " tokens"]:
        # Not a memory map: the pages of one count as this process's memory, and training goes all over the text.
        try:
            ids = np.fromfile(_shard(self.folder, number), self.format, count, offset=start * _bytes(self.format))
        except OSError as error:
            raise self._gone(number, error.strerror or str(error)) from None
        if len(ids) < count:
            raise self._gone(number, "it is shorter than it was")
        return torch.from_numpy(ids.astype(np.int64))

    def _gone(self, number: int, reason: str) -> KronpressError:
        return KronpressError(
            f"{_shard(self.folder, number)} with tokens of the text can not be read ({reason}); start again, and leave "
            "the cache as it is until the end"
        )


def stored_tokens(
    text: Corpus, tokenizer: PreTrainedTokenizerBase, *, model: PreTrainedModel, limit: int | None = None
) -> StoredTokens:
    """Return the ids of a large text, or of as much of it as has `limit` tokens or some more, as `tokenize` gives them.

    What of them is not in the cache is put there. A process that is killed leaves what it has finished.

    Raises:
        KronpressError: the model does not know one of them, or the cache cannot be written into.
    """
    part = text.content
    assert isinstance(part, FilePart), "a text in memory is tokenized there"
    folder = cached("tokens", key_of("tokens", part.digest, tokenizer_digest(tokenizer), chunking()))
    largest = max(tokenizer.get_vocab().values(), default=0)
    number_format = "<u2" if largest < 2**16 else "<u4"
    ids = StoredTokens(folder, number_format, _finished(folder, number_format))
    if not _suffices(ids, part, limit):
        needed = part.size // _CHARACTERS_A_TOKEN * _bytes(number_format)
        with making(folder, needed=max(0, needed - len(ids) * _bytes(number_format))):
            ids = _made(StoredTokens(folder, number_format, _finished(folder, number_format)), part, tokenizer, limit)
    require_known(torch.tensor([ids.highest]), tokenizer, model=model)
    return ids


def _suffices(ids: StoredTokens, part: FilePart, limit: int | None) -> bool:
    return _stop(ids.shards) == part.size or (limit is not None and len(ids) >= limit)


def _stop(shards: tuple[Shard, ...]) -> int:
    return shards[-1].stop if shards else 0


def _finished(folder: Path, number_format: str) -> tuple[Shard, ...]:
    """Return the files that are there and whole, up to the first that is not."""
    try:
        listed = [Shard(*map(int, entry)) for entry in files.read_object(folder / _INDEX)["shards"]]
    except (OSError, KronpressError, KeyError, TypeError, ValueError):
        return ()
    whole = 0
    for number, shard in enumerate(listed):
        path = _shard(folder, number)
        if not path.exists() or path.stat().st_size != shard.tokens * _bytes(number_format):
            break
        whole = number + 1
    return tuple(listed[:whole])


def _made(ids: StoredTokens, part: FilePart, tokenizer: PreTrainedTokenizerBase, limit: int | None) -> StoredTokens:
    """Write the files that are missing, and after each of them the index."""
    text = chunks(part.pieces(start=_stop(ids.shards)))
    with Bar(total=part.size, initial=_stop(ids.shards), desc="tokens, once", unit="byte", unit_scale=True) as bar:
        while not _suffices(ids, part, limit):
            shard = _write(ids, text, tokenizer, bar)
            ids = StoredTokens(ids.folder, ids.format, (*ids.shards, shard))
            files.write_json(ids.folder / _INDEX, {"shards": [astuple(shard) for shard in ids.shards]})
    return ids


def _write(ids: StoredTokens, text: Iterator[str], tokenizer: PreTrainedTokenizerBase, bar: Bar) -> Shard:
    tokens = highest = characters = 0
    stop = _stop(ids.shards)
    path = _shard(ids.folder, len(ids.shards))
    with files.replacing(path) as partial, partial.open("wb") as stream:
        while characters < SHARD and (some := list(islice(text, AT_ONCE))):
            for chunk, found in zip(some, ids_of(some, tokenizer), strict=True):
                row = np.array(found, dtype=ids.format)
                stream.write(row.tobytes())
                tokens, highest = tokens + len(row), max(highest, int(row.max(initial=0)))
                size = len(chunk.encode())
                stop, characters = stop + size, characters + len(chunk)
                bar.update(size)
    return Shard(tokens, stop, highest)


def _bytes(number_format: str) -> int:
    return np.dtype(number_format).itemsize


def _shard(folder: Path, number: int) -> Path:
    return folder / f"{number:05}.ids"


class StoredWindows:
    """Windows of stored ids that do not overlap, as `windows` cuts them; each is read when it is asked for."""

    def __init__(
        self, ids: StoredTokens, *, size: int, name: str, first: int | None = None, limit: int | None = None
    ) -> None:
        self.ids, self.first = ids, first
        self._text = size - (first is not None)
        self._count = count_of_windows(min(len(ids), limit or len(ids)), size=size, name=name, first=first)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Int[Tensor, " size"]:
        if not 0 <= index < self._count:
            raise IndexError(f"window {index} of {self._count}")
        ids = self.ids[index * self._text : (index + 1) * self._text]
        return ids if self.first is None else torch.cat([ids.new_tensor([self.first]), ids])


TextWindows: TypeAlias = Int[Tensor, "windows size"] | StoredWindows
"""Windows of a text: in memory, or read one after the other."""
