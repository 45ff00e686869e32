"""Plain text from local files, or from what ships with Python."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from kronpress.data.files import neighbors, read_json_lines, read_utf8, require_characters
from kronpress.errors import KronpressError, did_you_mean

_BETWEEN_DOCUMENTS = "\n\n"


@dataclass(frozen=True)
class Corpus:
    """A text and the name by which reports and errors call it."""

    name: str
    text: str

    @cached_property
    def fingerprint(self) -> str:
        """Return the SHA-256 of the UTF-8 text, in hexadecimal."""
        return hashlib.sha256(self.text.encode("utf-8")).hexdigest()


def read_text(source: str) -> Corpus:
    r"""Read the text that `source` names; the corpus is called what the source is called.

    A source is `bundled:python-reference` (the Python language reference, which ships inside CPython and differs
    between versions of Python; the fingerprint tells), a .txt or .md file, a .jsonl file with one object a line and
    its text under `text`, a folder (every such file below it, in the order of their paths), or several of these with
    commas between them. Files are read as UTF-8 with `\n` line ends; documents are joined by one blank line.

    Raises:
        KronpressError: where the source is missing, of another kind, not UTF-8, malformed or empty.
    """
    if source.strip() and Path(source).expanduser().exists():
        return Corpus(source, _read_source(source))
    return Corpus(source, _join([_read_source(part.strip()) for part in source.split(",")]))


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


def _join(documents: list[str]) -> str:
    if len(documents) == 1:
        return documents[0]
    return _BETWEEN_DOCUMENTS.join(document.strip("\n") for document in documents if document.strip()) + "\n"


def _read_source(source: str) -> str:
    if not source:
        raise KronpressError("a text source has no name; name a file, a folder or 'bundled:python-reference'")
    text = _read_bundled(source) if source.startswith("bundled:") else _read_path(Path(source).expanduser())
    if not text.strip():
        raise KronpressError(f"the text '{source}' is empty; name a file or folder with text in it")
    return text


def _read_path(path: Path) -> str:
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        remedy = "name a file, a folder or 'bundled:python-reference'"
        raise KronpressError(f"there is no text at '{path}': {neighbors(path, suffixes=_READERS, remedy=remedy)}")
    return _read_file(path)


def _read_folder(folder: Path) -> str:
    paths = [path for path in folder.rglob("*") if path.is_file() and path.suffix.lower() in _READERS]
    if not paths:
        raise KronpressError(f"the folder '{folder}' holds no {', '.join(_READERS)} file; name another folder")
    return _join([_read_file(path) for path in sorted(paths, key=lambda path: path.relative_to(folder).as_posix())])


def _read_file(path: Path) -> str:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise KronpressError(f"'{path}' is not a text that can be read; give it as one of {', '.join(_READERS)}")
    return reader(path)


def _read_plain(path: Path) -> str:
    return read_utf8(path).replace("\r\n", "\n").replace("\r", "\n")


def _read_jsonl(path: Path) -> str:
    return _join([_record_text(record, place) for place, record in read_json_lines(path)])


def _record_text(record: dict[str, Any], place: str) -> str:
    text = record.get("text")
    if not isinstance(text, str):
        found = f"the fields {', '.join(record)}" if record else "no field at all"
        raise KronpressError(f"{place}: no field 'text' with a string in it, but {found}; rename the field to 'text'")
    require_characters(text, place=place)
    return text


def _read_bundled(source: str) -> str:
    name = source.removeprefix("bundled:")
    if name not in _BUNDLED:
        raise KronpressError(f"unknown bundled text '{name}': {did_you_mean(name, _BUNDLED)}")
    return _BUNDLED[name]()


def _python_reference() -> str:
    try:
        topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    except ImportError:
        raise KronpressError("this Python ships without its language reference; name a text file instead") from None
    return _join([topics[topic] for topic in sorted(topics)])


_READERS: dict[str, Callable[[Path], str]] = {".txt": _read_plain, ".md": _read_plain, ".jsonl": _read_jsonl}
_BUNDLED: dict[str, Callable[[], str]] = {"python-reference": _python_reference}
