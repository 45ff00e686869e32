"""Plain text from local files, or from what ships with Python."""

from __future__ import annotations

import glob
import hashlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from kronpress.data.files import neighbors, user_path
from kronpress.data.formats import ENDINGS, is_text, join_documents, read_file
from kronpress.data.hub import HUB, hub_text
from kronpress.errors import KronpressError, did_you_mean, shown

BUNDLED = "bundled:"
"""What sources begin with that ship with Python."""

NO_NAME = "a text source has no name; name a file, a folder or 'bundled:python-reference'"

_PATTERN = set("*?[")
_CONTROLS = bytes(code for code in range(32) if chr(code) not in "\t\n\v\f\r")


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
    """A text and the name by which reports and errors call it; `shares` are those of a mixture of texts."""

    name: str
    text: str
    shares: Shares | None = None

    @cached_property
    def fingerprint(self) -> str:
        """Return the SHA-256 of the UTF-8 text, in hexadecimal."""
        return hashlib.sha256(self.text.encode("utf-8")).hexdigest()


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

    Raises:
        KronpressError: where the source is missing, of another kind, not UTF-8, malformed or empty.
    """
    start = folder or Path()
    return Corpus(source, join_documents([_read_source(part, start) for part in source_parts(source, folder=start)]))


def source_parts(source: str, *, folder: Path) -> list[str]:
    """Return the sources that are named with commas between them; a path that has a comma in it is one."""
    if source.strip() and _exists(source, folder):
        return [source]
    return [part.strip() for part in source.split(",")]


def _exists(source: str, folder: Path) -> bool:
    try:
        return (folder / user_path(source)).exists()
    except KronpressError:  # several sources may be no path together
        return False


def split_held_out(corpus: Corpus, *, fraction: float = 0.1) -> tuple[Corpus, Corpus]:
    """Cut off about the last `fraction` of the characters, at the line boundary nearest to it.

    The two parts put together are the whole text again.

    Raises:
        KronpressError: where `fraction` is not between 0 and 1, or the text has a single line.
    """
    if not 0 < fraction < 1:
        raise KronpressError(f"a held-out fraction of {fraction} leaves one part empty; choose one between 0 and 1")
    text = corpus.text
    target = round(len(text) * (1 - fraction))
    cuts = {text.rfind("\n", 0, target) + 1, text.find("\n", target) + 1} - {0, len(text)}
    if not cuts:
        raise KronpressError(
            f"the text '{corpus.name}' has no line boundary to hold out {fraction} at; give more lines"
        )
    cut = min(cuts, key=lambda position: (abs(position - target), position))
    return Corpus(f"{corpus.name} (train)", text[:cut]), Corpus(f"{corpus.name} (held out)", text[cut:])


def _read_source(source: str, folder: Path) -> str:
    if not source:
        raise KronpressError(NO_NAME)
    if source.startswith(BUNDLED):
        text = bundled_text(source)
    else:
        text = hub_text(source) if source.startswith(HUB) else _read_path(folder / user_path(source))
    if not text.strip():
        raise KronpressError(f"the text {shown(source)} is empty; name a file or folder with text in it")
    raw = text.encode()
    if len(raw.translate(None, _CONTROLS)) < 0.9 * len(raw):
        raise KronpressError(f"the text {shown(source)} is full of control characters such as NUL; give plain text")
    return text


def _read_path(path: Path) -> str:
    return join_documents([read_file(file) for file in text_files(path)])


def text_files(path: Path) -> list[Path]:
    """Return the file, the files of text below a folder, or those that match a pattern, in the order of their paths.

    Raises:
        KronpressError: there is none.
    """
    if path.is_dir():
        return _files_below(path)
    if not path.is_file() and _PATTERN & set(path.name):
        return _files_that_match(path)
    if not path.is_file():
        remedy = "name a file, a folder or 'bundled:python-reference'"
        raise KronpressError(
            f"there is no text at '{path}': {neighbors(path, suffixes=(*ENDINGS, '.gz'), remedy=remedy)}"
        )
    return [path]


def _files_below(folder: Path) -> list[Path]:
    paths = [path for path in folder.rglob("*") if is_text(path)]
    if not paths:
        raise KronpressError(f"the folder '{folder}' holds no {', '.join(ENDINGS)} file; name another folder")
    return sorted(paths, key=lambda path: path.relative_to(folder).as_posix())


def _files_that_match(pattern: Path) -> list[Path]:
    paths = [path for path in map(Path, glob.glob(str(pattern))) if is_text(path)]
    if not paths:
        raise KronpressError(f"no {', '.join(ENDINGS)} file matches {shown(str(pattern))}; mend the pattern")
    return sorted(paths, key=lambda path: path.as_posix())


def bundled_text(source: str) -> str:
    """Return the text that `bundled:NAME` names.

    Raises:
        KronpressError: there is none of that name.
    """
    name = source.removeprefix(BUNDLED)
    if name not in _BUNDLED:
        raise KronpressError(f"unknown bundled text '{name}': {did_you_mean(name, _BUNDLED)}")
    return _BUNDLED[name]()


def _python_reference() -> str:
    try:
        topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    except ImportError:
        raise KronpressError("this Python ships without its language reference; name a text file instead") from None
    return join_documents([topics[topic] for topic in sorted(topics)])


_BUNDLED: dict[str, Callable[[], str]] = {"python-reference": _python_reference}
