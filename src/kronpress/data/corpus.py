"""A text under a name: held in memory, or, where it is large, read piece by piece from a file."""

from __future__ import annotations

import codecs
import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from kronpress.bars import Bar
from kronpress.checkpoint import files
from kronpress.data.cached import cached, making
from kronpress.errors import KronpressError

IN_MEMORY = 64 * 2**20
"""Characters of a text, or bytes of its file, beyond which it is read from a file."""

_BLOCK = 2**20  # bytes that are read at once


@dataclass(frozen=True)
class Stamp:
    """What shows that a file has changed: its size, the time of the last change, and which file it is."""

    size: int
    changed: int
    number: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        """Return the stamp of a file, from what the system says of it."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ino)


@dataclass(frozen=True)
class FilePart:
    r"""Bytes of a file of UTF-8 with `\n` line ends, between the ends of two lines.

    Attributes:
        start: the first of them.
        stop: the one behind the last.
        stamp: of the file as it was when the part was cut.
    """

    path: Path
    start: int
    stop: int
    stamp: Stamp

    @classmethod
    def whole(cls, path: Path) -> FilePart:
        """Return all of a file."""
        stamp = Stamp.of(path.stat())
        return cls(path, 0, stamp.size, stamp)

    @property
    def size(self) -> int:
        """Return the number of bytes."""
        return self.stop - self.start

    def blocks(self, *, start: int = 0) -> Iterator[bytes]:
        """Yield the bytes from number `start` on, a megabyte at a time.

        Raises:
            KronpressError: the file has changed since the part was cut.
        """
        place = self.start + start
        try:
            with self.path.open("rb") as stream:
                stream.seek(place)
                while place < self.stop:
                    self._require_unchanged(os.fstat(stream.fileno()))
                    block = stream.read(min(_BLOCK, self.stop - place))
                    place += len(block)
                    yield block
                self._require_unchanged(os.fstat(stream.fileno()))
        except OSError as error:
            raise KronpressError(f"'{self.path}' can not be read: {error.strerror}; start again") from None

    def pieces(self, *, start: int = 0) -> Iterator[str]:
        """Yield the text from byte number `start` on, where a character begins, piece by piece.

        Raises:
            KronpressError: as `blocks`.
        """
        decoder = codecs.getincrementaldecoder("utf-8")()
        yield from map(decoder.decode, self.blocks(start=start))

    @cached_property
    def digest(self) -> str:
        """Return the SHA-256 of the bytes, in hexadecimal."""
        digest = hashlib.sha256()
        for block in self.blocks():
            digest.update(block)
        return digest.hexdigest()

    def parted(self, place: int) -> tuple[FilePart, FilePart]:
        """Return what lies before byte number `place` and what lies behind."""
        middle = self.start + place
        return (
            FilePart(self.path, self.start, middle, self.stamp),
            FilePart(self.path, middle, self.stop, self.stamp),
        )

    def line_starts(self, place: int) -> set[int]:
        """Return where the line that holds byte number `place` begins, and where the next one does, if they do."""
        begin, end = place, place
        before = after = -1
        with self.path.open("rb") as stream:
            while before < 0 < begin:
                step = min(_BLOCK, begin)
                begin -= step
                stream.seek(self.start + begin)
                before = stream.read(step).rfind(b"\n")
            stream.seek(self.start + place)
            while after < 0 and end < self.size:
                block = stream.read(min(_BLOCK, self.size - end))
                after = block.find(b"\n")
                end += after if after >= 0 else len(block)
        return {begin + before + 1} | ({end + 1} if after >= 0 else set())

    def _require_unchanged(self, status: os.stat_result) -> None:
        if Stamp.of(status) != self.stamp:
            raise KronpressError(
                f"'{self.path}' has changed while it was read; start again, and leave it until the end"
            )


@dataclass(frozen=True)
class Shares:
    """How far a mixture of texts keeps the shares of its sources.

    Attributes:
        tokens: from the start, after which a source has nothing left to give.
        ends: that source.
    """

    tokens: int
    ends: str


@dataclass(frozen=True)
class Corpus:
    """A text and the name by which reports and errors call it.

    Attributes:
        content: the text, or, where it is large, where it lies.
        shares: those of a mixture of texts.
    """

    name: str
    content: str | FilePart
    shares: Shares | None = None

    @property
    def is_large(self) -> bool:
        """Whether the text lies in a file."""
        return isinstance(self.content, FilePart)

    @property
    def text(self) -> str:
        """Return the text whole, however large it is: what reads only some of it takes `pieces`."""
        return self.content if isinstance(self.content, str) else "".join(self.content.pieces())

    @property
    def size(self) -> int:
        """Return its size: characters of a text in memory, else bytes."""
        return len(self.content) if isinstance(self.content, str) else self.content.size

    def pieces(self) -> Iterator[str]:
        """Yield the text piece by piece; one in memory is a single one."""
        yield from [self.content] if isinstance(self.content, str) else self.content.pieces()

    @cached_property
    def fingerprint(self) -> str:
        """Return the SHA-256 of the UTF-8 text, in hexadecimal."""
        if isinstance(self.content, FilePart):
            return self.content.digest
        return hashlib.sha256(self.content.encode("utf-8")).hexdigest()


def is_large(size: int) -> bool:
    """Say whether a text of so many characters or bytes is read from a file."""
    return size > IN_MEMORY


def small_in_memory(part: FilePart) -> str | FilePart:
    """Return the text of a part, or the part itself where it is large."""
    return part if is_large(part.size) else "".join(part.pieces())


def stored_text(key: str, parts: Iterable[str], *, needed: int) -> FilePart:
    """Return the file in the cache that holds the text of this key, written from its parts where it is not there.

    Args:
        needed: about how many bytes it takes.

    Raises:
        KronpressError: the cache cannot be written into, or the disk is full.
    """
    path = cached("texts", key) / "text.txt"
    if not path.exists():
        with making(path.parent, needed=needed):
            if not path.exists():
                _write(path, parts)
    return FilePart.whole(path)


def _write(path: Path, parts: Iterable[str]) -> None:
    bar = Bar(desc="large text into the cache", unit="byte", unit_scale=True)
    with bar, files.replacing(path) as partial, partial.open("wb") as stream:
        for part in parts:
            bar.update(stream.write(part.encode()))


def gathered(parts: Iterable[str], *, held: list[str]) -> bool:
    """Move the parts of a text into `held` until they are a large text, and say whether they are."""
    size = 0
    for part in parts:
        held.append(part)
        size += len(part)
        if is_large(size):
            return True
    return False


def split_held_out(corpus: Corpus, *, fraction: float = 0.1) -> tuple[Corpus, Corpus]:
    """Cut off about the last `fraction` of the text, at the line boundary nearest to it.

    The fraction is one of characters, or of bytes where the text is large. The two parts put together are the whole
    text again.

    Raises:
        KronpressError: where `fraction` is not between 0 and 1, or the text has a single line.
    """
    if not 0 < fraction < 1:
        raise KronpressError(f"a held-out fraction of {fraction} leaves one part empty; choose one between 0 and 1")
    content, target = corpus.content, round(corpus.size * (1 - fraction))
    if isinstance(content, str):
        starts = {content.rfind("\n", 0, target) + 1, content.find("\n", target) + 1}
    else:
        starts = content.line_starts(target)
    cuts = starts - {0, corpus.size}
    if not cuts:
        raise KronpressError(
            f"the text '{corpus.name}' has no line boundary to hold out {fraction} at; give more lines"
        )
    cut = min(cuts, key=lambda position: (abs(position - target), position))
    parts = (content[:cut], content[cut:]) if isinstance(content, str) else map(small_in_memory, content.parted(cut))
    kept, held_out = parts
    return Corpus(f"{corpus.name} (train)", kept), Corpus(f"{corpus.name} (held out)", held_out)
