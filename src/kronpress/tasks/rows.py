"""Rows of a data set, two texts at most and a label: from TSV, JSON lines, folders of texts or the hub."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from tqdm import tqdm

from kronpress.data import (
    HUB,
    hub_arguments,
    load_from_hub,
    neighbors,
    read_json_lines,
    read_utf8,
    require_characters,
    user_path,
)
from kronpress.errors import KronpressError, did_you_mean, listed, shown

Value: TypeAlias = str | float | None
Record: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of the columns; of several names for one thing, the first that a file has counts.

    Attributes:
        first: the text, or the first of two.
        second: the second text; none in tasks on one text.
        label: the class or number.
        name: the row's own name; rows are counted from 0 where a file has no such column.
        group: the part of the data set that a row belongs to.
        bare: the columns, in order, of a TSV file without a header; none if each file has one.
        folders: the classes, where they may be folders with one .txt file for each text.
        ragged: whether the published TSV files have rows with too few fields; these are left out, with a warning.
    """

    first: tuple[str, ...]
    second: tuple[str, ...] = ()
    label: tuple[str, ...] = ("label",)
    name: tuple[str, ...] = ("index", "idx", "id")
    group: tuple[str, ...] = ()
    bare: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    ragged: bool = False


@dataclass(frozen=True, kw_only=True)
class Row:
    """What a row says, not interpreted, and its `place` for error messages."""

    first: str
    second: str | None
    label: Value
    name: str
    group: str | None
    place: str


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is wanted of a source.

    Attributes:
        columns: where texts and label stand.
        names: what the split may be called, as a file without its ending, a folder or a split on the hub.
        labeled: whether each row must have a label.
        hub: the data set and configuration that the bare source `hub:` stands for.
    """

    columns: Columns
    names: Sequence[str]
    labeled: bool = True
    hub: tuple[str, ...] = ()


def read_rows(source: str, request: Request) -> Iterator[Row]:
    r"""Yield the rows of one split.

    A source is a folder with a file for each split (train.tsv, dev.tsv, test.tsv; .txt is read as .tsv; .jsonl and
    .json hold one object a line), one such file, whatever it is called, or a data set on the hub: `hub:NAME`,
    `hub:OWNER/NAME` or `hub:OWNER/NAME/CONFIGURATION`. `hub:` alone is the task's own data set, and its name alone is
    read in the task's own configuration.

    TSV has no quoting: fields end at tabs and rows at `\n` or `\r\n`, nothing else. Texts may be empty.

    Raises:
        KronpressError: missing, malformed or empty; the message names file, line and remedy.
    """
    rows = _hub_rows(source, request) if source.startswith(HUB) else _local_rows(user_path(source), request)
    first = next(rows, None)
    if first is None:
        raise KronpressError(f"'{source}' has no rows for '{request.names[0]}'; name a file or split that has some")
    yield first
    yield from rows


def _local_rows(path: Path, request: Request) -> Iterator[Row]:
    if path.is_dir():
        path = _split_in(path, request)
    if path.is_dir():
        return _folder_rows(path, request.columns.folders)
    if not path.is_file():
        raise KronpressError(f"there is no data at '{path}': {_offered(path)}")
    if path.suffix.lower() not in _RECORDS:
        raise KronpressError(f"'{path}' can not be read as rows; give it as one of {', '.join(_RECORDS)}")
    records = _RECORDS[path.suffix.lower()](path, request)
    return (_row(record, request, place, number) for number, (place, record) in enumerate(records))


def _split_in(folder: Path, request: Request) -> Path:
    """Find what holds the split in a folder."""
    files = [folder / f"{name}{suffix}" for name in request.names for suffix in _RECORDS]
    folders = [folder / name for name in request.names if request.columns.folders]
    found = [path for path in files if path.is_file()] + [path for path in folders if path.is_dir()]
    if not found:
        wanted = f"{request.names[0]}.tsv"
        raise KronpressError(f"'{folder}' has no '{wanted}': {_offered(folder / wanted)}")
    return found[0]


def _offered(missing: Path) -> str:
    remedy = f"name a folder, a {', '.join(_RECORDS)} file or '{HUB}NAME'"
    return neighbors(missing, suffixes=_RECORDS, remedy=remedy)


def _folder_rows(folder: Path, classes: Sequence[str]) -> Iterator[Row]:
    for label in classes:
        paths = sorted((folder / label).glob("*.txt"))
        if not paths:
            raise KronpressError(f"'{folder / label}' holds no .txt file; one for each text of class '{label}' is due")
        for path in paths:
            name = f"{label}/{path.stem}"
            yield Row(first=read_utf8(path), second=None, label=label, name=name, group=None, place=str(path))


def _tsv_records(path: Path, request: Request) -> Iterator[tuple[str, Record]]:
    lines = [line.removesuffix("\r") for line in read_utf8(path).rstrip("\r\n").split("\n")]
    if lines == [""]:
        return
    header: Sequence[str] = [name.strip() for name in lines[0].split("\t")]
    first_row = 1
    if request.columns.bare and not set(request.columns.first) & set(header):
        header, first_row = request.columns.bare, 0
    else:
        _require_columns(header, request, f"{path}, line 1")
        _require_different(header, f"{path}, line 1")
    short: list[int] = []
    for number, line in enumerate(lines[first_row:], start=first_row + 1):
        place, fields = f"{path}, line {number}", line.split("\t")
        if request.columns.ragged and request.labeled and len(fields) < len(header):
            short.append(number)
            continue
        if len(fields) != len(header):
            raise KronpressError(
                f"{place}: {len(fields)} fields instead of {len(header)} ({listed(header)}); "
                "give one row a line, with tabs between the fields and none inside of them"
            )
        yield place, dict(zip(header, fields, strict=True))
    if short:
        tqdm.write(
            f"warning: {path}: rows with too few fields are left out: {len(short)}, the first in line {short[0]}"
        )


def _json_records(path: Path, request: Request) -> Iterator[tuple[str, Record]]:
    for place, record in read_json_lines(path):
        _require_columns(record, request, place)
        yield place, record


_RECORDS: Mapping[str, Callable[[Path, Request], Iterator[tuple[str, Record]]]] = {
    ".tsv": _tsv_records,
    ".txt": _tsv_records,
    ".jsonl": _json_records,
    ".json": _json_records,
}


def hub_records(source: str, names: Sequence[str], own: tuple[str, ...]) -> Iterator[tuple[str, Record]]:
    """Yield the place and content of each row that a data set on the hub has in one split.

    Args:
        source: as for `read_rows`; it begins with `hub:`.
        names: what the split may be called; the first one found is read.
        own: the data set and configuration that the bare source stands for.

    Raises:
        KronpressError: it can not be loaded, or has no such split.
    """
    loaded = load_from_hub(source, _hub_arguments(source, own))
    split = next((name for name in names if name in loaded), None)
    if split is None:
        raise KronpressError(f"'{source}' has no split '{names[0]}': {did_you_mean(names[0], loaded)}")
    for number, record in enumerate(loaded[split]):
        yield f"{source}, split {split}, row {number}", record


def _hub_rows(source: str, request: Request) -> Iterator[Row]:
    for number, (place, record) in enumerate(hub_records(source, request.names, request.hub)):
        _require_columns(record, request, place)
        yield _row(record, request, place, number)


def _hub_arguments(source: str, own: tuple[str, ...]) -> tuple[str, ...]:
    """Return the data set and, if any, its configuration."""
    named = hub_arguments(source)
    if not named and not own:
        raise KronpressError(f"this task has no data set of its own on the hub; name one as '{HUB}OWNER/NAME'")
    return own if not named or named == own[:1] else named


def _row(record: Record, request: Request, place: str, number: int) -> Row:
    columns = request.columns
    name, group = (_value(record, names, place) for names in (columns.name, columns.group))
    return Row(
        first=_text(record, columns.first, place),
        second=_text(record, columns.second, place) if columns.second else None,
        label=_value(record, columns.label, place),
        name=str(number) if name is None else str(name),
        group=None if group is None else str(group),
        place=place,
    )


def _require_columns(present: Iterable[str], request: Request, place: str) -> None:
    columns, present = request.columns, list(present)
    wanted = [columns.first, columns.second, columns.group, *([columns.label] if request.labeled else [])]
    for names in filter(None, wanted):
        if not set(names) & set(present):
            raise KronpressError(
                f"{place}: no column '{names[0]}', but {listed(present)}; "
                f"name it {' or '.join(repr(name) for name in names)}"
            )


def _require_different(header: Sequence[str], place: str) -> None:
    twice = next((name for name in header if name and header.count(name) > 1), None)
    if twice is not None:
        raise KronpressError(f"{place}: more than one column {shown(twice)}; rename all but one of them")


def _value(record: Record, names: Sequence[str], place: str) -> Value:
    column = next((name for name in names if name in record), None)
    if column is None:
        return None
    value = record[column]
    if value is not None and (isinstance(value, bool) or not isinstance(value, str | int | float)):
        raise KronpressError(f"{place}: '{column}' is a {type(value).__name__}; give a text or a number")
    return value


def _text(record: Record, names: Sequence[str], place: str) -> str:
    value = _value(record, names, place)
    if not isinstance(value, str):
        raise KronpressError(f"{place}: '{names[0]}' is {shown(value)} and no text; give it in quotes")
    require_characters(value, place=place)
    return value
