"""Files of text and of JSON lines, and errors that say where in them something is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from kronpress.errors import KronpressError, did_you_mean, shown

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def user_path(source: str) -> Path:
    """Return the path that a user names, with `~` for the home folder.

    Raises:
        KronpressError: no path can be called so.
    """
    try:
        path = Path(source).expanduser()
        path.exists()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL in it, or a home folder that is not known
        reason = getattr(error, "strerror", None) or error
        raise KronpressError(f"{shown(source)} is no path ({reason}); name a file or a folder") from None
    return path


def read_utf8(path: Path, *, remedy: str = "check its permissions") -> str:
    r"""Return the text of a file as it is, `\r` included, without a byte-order mark.

    Raises:
        KronpressError: it is not UTF-8, or can not be read, for which `remedy` says what to do.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise KronpressError(f"'{path}' can not be read: {error.strerror}; {remedy}") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise not_utf8(path, line=line, byte=error.start) from None


def not_utf8(path: Path, *, line: int, byte: int) -> KronpressError:
    """Return what is wrong with a file that is no UTF-8 at a byte."""
    return KronpressError(f"{path}, line {line}: not UTF-8 at byte {byte}; convert it to UTF-8")


def read_json_lines(path: Path, *, remedy: str = "check its permissions") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the place, for error messages, and the object of each line that is not blank.

    Raises:
        KronpressError: as `read_utf8`, or a line holds something else.
    """
    return json_objects(read_utf8(path, remedy=remedy).split("\n"), path)


def json_objects(lines: Iterable[str], path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the place and the object of each line of the file `path` that is not blank.

    Raises:
        KronpressError: a line holds something else.
    """
    return ((place, record) for place, record, _ in json_lines(lines, path))


def json_lines(lines: Iterable[str], path: Path) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield as `json_objects`, with each line as it is written, but for space around it."""
    for number, line in enumerate(lines, start=1):
        if written := line.strip():
            place = f"{path}, line {number}"
            yield place, _json_object(line, place), written


def parse_json(text: str, *, place: str, remedy: str) -> Any:
    """Return what the text holds; `place`, for the error message, is that of its first line.

    Raises:
        KronpressError: the text is not JSON, or has numbers or a depth that Python does not read.
    """
    try:
        return json.loads(text, object_pairs_hook=_different)
    except (ValueError, RecursionError) as error:
        where = str(error)
        if isinstance(error, json.JSONDecodeError):
            line = f"line {error.lineno}, " if "\n" in text else ""
            where = f"{error.msg} at {line}column {error.colno}"
        raise KronpressError(f"{place}: not JSON ({where}); {remedy}") from None


def _different(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {shown(twice)} is given twice")
    return record


def _json_object(line: str, place: str) -> dict[str, Any]:
    record = parse_json(line, place=place, remedy="give one object a line")
    if not isinstance(record, dict):
        raise KronpressError(f"{place}: a JSON {type(record).__name__}, not an object; give one object a line")
    return record


def require_characters(text: str, *, place: str) -> None:
    """Refuse what JSON can escape and UTF-8 can not write.

    Raises:
        KronpressError: the text has half of a surrogate pair.
    """
    if not text.isascii() and _LONE_SURROGATE.search(text):
        raise KronpressError(f"{place}: half of a surrogate pair, which is no character; mend or remove it")


def neighbors(path: Path, *, suffixes: Collection[str], remedy: str) -> str:
    """Say what the folder of a missing path offers instead: folders, and files with one of the suffixes.

    `remedy` is for a folder that offers nothing.
    """
    if not path.parent.is_dir():
        return f"the folder '{path.parent}' does not exist either; check the path"
    names = [item.name for item in path.parent.iterdir() if item.is_dir() or item.suffix.lower() in suffixes]
    return did_you_mean(path.name, names) if names else f"'{path.parent}' holds nothing of the kind; {remedy}"
