"""Plain text from local files, or from what ships with Python."""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

from kronpress.checkpoint import files
from kronpress.data.cached import key_of
from kronpress.data.corpus import Corpus, FilePart, Stamp, gathered, is_large, stored_text
from kronpress.data.files import user_path
from kronpress.data.formats import ending_of, holds_records, is_packed, joined, stream_file, stream_text
from kronpress.data.hub import HUB, hub_text
from kronpress.data.sources import BUNDLED, NO_NAME, bundled_text, source_parts, text_files
from kronpress.errors import KronpressError, shown

_CONTROLS = bytes(code for code in range(32) if chr(code) not in "\t\n\v\f\r")
_MARK = "\ufeff".encode()  # of the byte order


def read_text(source: str, *, folder: Path | None = None) -> Corpus:
    r"""Read the text that `source` names; the corpus is called what the source is called.

    A source is `bundled:python-reference` (the Python language reference, which ships inside CPython and differs
    between versions of Python; the fingerprint tells); a file; a folder (every file of text below it, in the order of
    their paths); a pattern such as `novels/*.txt` (the files of text that match it, in that order); a data set on the
    hub, `hub:OWNER/NAME/CONFIGURATION#SPLIT`; or several of these with commas between them. Paths start from
    `folder`, by default from where the program was started.

    Files of text are .txt, .text, .md, .raw and .tokens (WikiText's), each line as it is; .jsonl with one object a line
    and .parquet, their texts under `text`; all but .parquet also packed as .gz. A file that is named by itself may have
    any other ending that does not stand for another format. Files are read as UTF-8 with `\n` line ends; documents are
    joined by one blank line.

    A large text stays in its file where that is a plain one, and is written once into a file in the cache elsewhere.

    Raises:
        KronpressError: where the source is missing, of another kind, not UTF-8, malformed or empty, or a large one
            has no room in the cache.
    """
    start = folder or Path()
    sources = [_Source(name, start) for name in source_parts(source, folder=start)]
    plain = sources[0].plain_file() if len(sources) == 1 else None
    return Corpus(source, plain or _content(sources))


def _content(sources: list[_Source]) -> str | FilePart:
    """Return the text of sources joined, or the file in the cache that holds it where it is large."""
    parts, held = joined(source.pieces() for source in sources), list[str]()
    if not gathered(parts, held=held):
        return "".join(held)
    key = key_of("sources", [source.digests() for source in sources])
    return stored_text(key, chain(held, parts), needed=sum(source.size for source in sources))


@dataclass(frozen=True)
class _Source:
    """What one name stands for; paths start from the folder."""

    name: str
    folder: Path

    @cached_property
    def content(self) -> str | list[Path]:
        """Return the files in their order, or the text where it comes from none."""
        if not self.name:
            raise KronpressError(NO_NAME)
        if self.name.startswith(BUNDLED):
            return bundled_text(self.name)
        return hub_text(self.name) if self.name.startswith(HUB) else text_files(self.folder / user_path(self.name))

    @cached_property
    def stamps(self) -> list[Stamp]:
        """Return the stamps of the files as they were when they were first asked for."""
        return [] if isinstance(self.content, str) else [Stamp.of(path.stat()) for path in self.content]

    @property
    def size(self) -> int:
        """Return the size of the files, or of the text."""
        return len(self.content) if isinstance(self.content, str) else sum(stamp.size for stamp in self.stamps)

    def pieces(self) -> Iterator[str]:
        """Yield the text piece by piece.

        Raises:
            KronpressError: it cannot be read, is empty or no plain text, or a file has changed on the way.
        """
        content, before, look = self.content, self.stamps, _Look(self.name)
        for piece in [content] if isinstance(content, str) else joined(map(stream_file, content)):
            look.take(piece.encode())
            yield piece
        look.finish()
        if not isinstance(content, str) and [Stamp.of(path.stat()) for path in content] != before:
            raise KronpressError(f"a file of {shown(self.name)} has changed while it was read; start again")

    def digests(self) -> list[tuple[str, str]]:
        """Return what tells the text from others without reading it as one: formats and SHA-256 of the files."""
        if isinstance(self.content, str):
            return [("text", hashlib.sha256(self.content.encode()).hexdigest())]
        return [(ending_of(path) if holds_records(path) else "text", _packed_digest(path)) for path in self.content]

    def plain_file(self) -> FilePart | None:
        r"""Return the file itself where it is a large one with a text as it is: no mark at the start and no `\r`.

        Raises:
            KronpressError: it is not UTF-8, empty, or no plain text.
        """
        paths = [] if isinstance(self.content, str) else self.content
        if len(paths) != 1 or is_packed(paths[0]) or holds_records(paths[0]) or not is_large(self.size):
            return None
        part, look, decoder = FilePart.whole(paths[0]), _Look(self.name), codecs.getincrementaldecoder("utf-8")()
        try:
            for number, block in enumerate(part.blocks()):
                if b"\r" in block or (number == 0 and block.startswith(_MARK)):
                    return None
                decoder.decode(block)
                look.take(block)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            for _ in stream_text(paths[0]):  # which says in what line
                pass
            raise
        look.finish()
        return part


@dataclass
class _Look:
    """Looks whether a text that passes by is one."""

    name: str
    seen: int = 0
    controls: int = 0
    blank: bool = True

    def take(self, raw: bytes) -> None:
        """Look at some bytes of it."""
        self.seen += len(raw)
        self.controls += len(raw) - len(raw.translate(None, _CONTROLS))
        self.blank = self.blank and not raw.decode(errors="ignore").strip()

    def finish(self) -> None:
        """Say what is wrong with the whole.

        Raises:
            KronpressError: it is empty, or full of control characters.
        """
        if self.blank:
            raise KronpressError(f"the text {shown(self.name)} is empty; name a file or folder with text in it")
        if self.seen - self.controls < 0.9 * self.seen:
            raise KronpressError(
                f"the text {shown(self.name)} is full of control characters such as NUL; give plain text"
            )


def _packed_digest(path: Path) -> str:
    return f"{'packed ' if is_packed(path) else ''}{files.sha256(path)}"
