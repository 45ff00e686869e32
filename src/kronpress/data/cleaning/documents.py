"""The documents of a text source, as a stream."""

from __future__ import annotations

import datetime
import decimal
import json
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from kronpress.data.files import user_path
from kronpress.data.formats import ending_of, holds_records, stream_json_lines, stream_records, stream_text, text_of
from kronpress.data.hub import HUB, hub_records
from kronpress.data.sources import BUNDLED, bundled_text, source_files, source_parts, text_files
from kronpress.errors import KronpressError

Unit: TypeAlias = Literal["paragraph", "line"]
"""What a document is in plain text."""

BETWEEN: Mapping[Unit, str] = {"paragraph": "\n\n", "line": "\n"}
"""What stands between two documents of plain text."""

_ENDS: Mapping[Unit, re.Pattern[str]] = {
    "paragraph": re.compile(r"\n(?:[^\S\n]*\n)+"),
    "line": re.compile(r"\n+"),
}
_LONGEST = 2**24  # characters of a document of plain text: more is a file that has other units


class Document(NamedTuple):
    """What stays or goes as a whole.

    Attributes:
        text: of the document.
        place: the file or data set and the line or row in it.
        record: what the text is a field of, as JSON in one line, where the source has records.
    """

    text: str
    place: str
    record: str | None = None


def documents_of(source: str, *, unit: Unit) -> Iterator[Document]:
    """Stream the documents of a source, named as for `read_text`, in their order; blank ones are left out.

    Raises:
        KronpressError: as `read_text`, when the stream comes to it; or plain text has no end of a unit for 16 million
            characters.
    """
    for part in source_parts(source, folder=Path()):
        if part.startswith(HUB):
            yield from _documents(_as_lines(hub_records(part)))
        elif part.startswith(BUNDLED):
            yield from _units([bundled_text(part)], part, unit=unit)
        else:
            for path in text_files(user_path(part)):
                yield from _of_file(path, unit=unit)


def file_states(source: str) -> dict[str, tuple[int, int]]:
    """Return the size in bytes and the time of the last change in nanoseconds of each file of a source.

    Raises:
        KronpressError: a file is missing.
    """
    states = {path: path.stat() for path in source_files(source)}
    return {str(path): (state.st_size, state.st_mtime_ns) for path, state in states.items()}


def _of_file(path: Path, *, unit: Unit) -> Iterator[Document]:
    if not holds_records(path):
        return _units(stream_text(path), str(path), unit=unit)
    if ending_of(path) == ".parquet":
        return _documents(_as_lines(stream_records(path, whole=True)))
    return _documents(stream_json_lines(path))


def _documents(rows: Iterable[tuple[str, str, str]]) -> Iterator[Document]:
    return (Document(text, place, line) for place, text, line in rows if text.strip())


def _as_lines(rows: Iterable[tuple[str, dict[str, Any]]]) -> Iterator[tuple[str, str, str]]:
    return ((place, text_of(record, place), as_json(record, place=place)) for place, record in rows)


def as_json(record: Mapping[str, Any], *, place: str) -> str:
    """Return a row of a table as JSON in one line; times and decimal numbers become strings.

    Raises:
        KronpressError: it has a value that JSON does not have.
    """
    try:
        line = json.dumps(record, ensure_ascii=False, allow_nan=False, default=_as_string)
    except (TypeError, ValueError) as error:
        reason = f"a value that no JSON can hold ({error})"
        raise KronpressError(f"{place}: {reason}; mend it, or leave its column out of the source") from None
    return line if line.isascii() or _encodes(line) else json.dumps(record, default=_as_string)


def _as_string(value: object) -> str:
    if isinstance(value, datetime.date | datetime.time | datetime.timedelta | decimal.Decimal | uuid.UUID):
        return str(value)
    raise TypeError(f"a {type(value).__name__}")


def _encodes(line: str) -> bool:
    try:
        line.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can escape
        return False
    return True


def _units(parts: Iterable[str], name: str, *, unit: Unit) -> Iterator[Document]:
    """Cut plain text into documents; ends of units that touch the end of what was read wait for what follows."""
    rest, line = "", 1
    for part in parts:
        rest += part
        start = 0
        for end in _ENDS[unit].finditer(rest):
            if end.end() == len(rest):
                break
            text = rest[start : end.start()]
            if text and not text.isspace():
                yield Document(text, f"{name}, line {line}")
            line += rest.count("\n", start, end.end())
            start = end.end()
        rest = rest[start:]
        if len(rest) > _LONGEST:
            raise _too_long(f"{name}, line {line}", unit=unit)
    text = rest.rstrip("\n")
    if text.strip():
        yield Document(text, f"{name}, line {line}")


def _too_long(place: str, *, unit: Unit) -> KronpressError:
    remedy = "set unit: line if every line is a document" if unit == "paragraph" else "give it as .jsonl"
    return KronpressError(f"{place}: a {unit} of more than {_LONGEST:,} characters; {remedy}, or cut it into parts")
