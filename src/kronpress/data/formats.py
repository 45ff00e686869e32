"""The text of one file, by the ending of its name; what is packed is unpacked up to a bound."""

from __future__ import annotations

import codecs
import gzip
import importlib
import io
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

from kronpress.data.files import json_lines, json_objects, not_utf8, require_characters
from kronpress.errors import KronpressError, listed

ENDINGS = (".txt", ".md", ".jsonl", ".text", ".raw", ".tokens", ".parquet")
"""What files of text are called in a folder, where each may be packed as .gz as well, but for .parquet."""

_OTHER = {
    *(".json", ".csv", ".tsv", ".xml", ".html", ".htm", ".pdf", ".doc", ".docx", ".odt", ".arrow"),
    *(".zip", ".tar", ".tgz", ".bz2", ".xz", ".zst", ".7z"),
}
_BETWEEN_DOCUMENTS = "\n\n"
_BLOCK = 2**20  # bytes of a file that are read at once
_ROWS = 256  # of a Parquet file that are in memory at once
_LARGEST = 4 * 2**30  # bytes or characters that come out of one packed file
_UNSUSPECTED = 64 * 2**20  # so many may come out of any
_HIGHEST_RATIO = 100  # text shrinks to a third or a tenth


def is_text(path: Path) -> bool:
    """Tell whether a file in a folder is one of text."""
    return path.is_file() and ending_of(path) in ENDINGS


def stream_file(path: Path) -> Iterator[str]:
    r"""Yield the text of a file with `\n` line ends, piece by piece; its name may have any ending of no other format.

    Raises:
        KronpressError: it is of another kind, not UTF-8, malformed, or grows without measure when it is unpacked.
    """
    if not holds_records(path):
        return stream_text(path)
    if ending_of(path) == ".parquet":
        return joined_rows(lambda: ((place, record["text"]) for place, record in stream_records(path)))
    return joined([record["text"]] for _, record in stream_records(path))


def holds_records(path: Path) -> bool:
    """Tell whether a file is one of records, each with a text of its own, rather than one text.

    Raises:
        KronpressError: its name has an ending that stands for a format that is not read.
    """
    ending = ending_of(path)
    if ending in _OTHER or (ending == ".parquet" and is_packed(path)):
        raise KronpressError(f"'{path}' is not a text that can be read; give it as one of {', '.join(ENDINGS)}")
    return ending in (".jsonl", ".parquet")


def stream_text(path: Path) -> Iterator[str]:
    r"""Yield the text of a file that holds no records, piece by piece, with `\n` line ends.

    Raises:
        KronpressError: as `stream_file`, when the stream comes to it.
    """
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    for part in _decoded_stream(path):
        yield newlines.decode(part)
    yield newlines.decode("", final=True)


def stream_records(path: Path, *, whole: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the place, for messages, and the record of each row of a file, all with a string under `text`.

    Args:
        whole: also read the other columns of a Parquet file.

    Raises:
        KronpressError: as `stream_file`, when the stream comes to it.
    """
    rows = (
        _parquet_rows(path, whole=whole)
        if ending_of(path) == ".parquet"
        else json_objects(_lines(_decoded_stream(path)), path)
    )
    for place, record in rows:
        text_of(record, place)
        yield place, record


def stream_json_lines(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield the place, the string under `text` and the line itself of each record of a .jsonl file.

    Raises:
        KronpressError: as `stream_file`, when the stream comes to it.
    """
    for place, record, line in json_lines(_lines(_decoded_stream(path)), path):
        yield place, text_of(record, place), line


def joined(documents: Iterable[Iterable[str]]) -> Iterator[str]:
    """Put one blank line between documents and leave out those that are blank; a single one stays as it is.

    Each document comes in pieces, and so does the text.
    """
    rest = iter(documents)
    first = list(islice(rest, 2))
    if len(first) == 1:
        yield from first[0]
        return
    between = ""
    for document in chain(first, rest):
        for number, piece in enumerate(_stripped(document)):
            if number == 0:
                yield between
            yield piece
            between = _BETWEEN_DOCUMENTS
    yield "\n"


def _stripped(document: Iterable[str]) -> Iterator[str]:
    """Yield a document without line ends around it; nothing where it is blank."""
    held, begun = "", False
    for piece in document:
        held += piece
        if not begun and held.strip():
            held, begun = held.lstrip("\n"), True
        if begun:
            kept = held.rstrip("\n")
            yield kept
            held = held[len(kept) :]


def joined_rows(rows: Callable[[], Iterable[tuple[str, Any]]]) -> Iterator[str]:
    """Join the rows of a data set, each with its place: the lines of a text, as in WikiText, or else documents.

    The rows are gone through twice, and the first time only until one is no line.

    Raises:
        KronpressError: a row is no text.
    """
    if _are_lines(text_of({"text": text}, place) for place, text in rows()):
        return (text or "\n" for _, text in rows())
    return joined([text_of({"text": text}, place)] for place, text in rows())


def _are_lines(texts: Iterable[str]) -> bool:
    any_text = False
    for text in texts:
        any_text = any_text or bool(text)
        if text.strip(" ") and text.find("\n") != len(text) - 1:
            return False
    return any_text


def bounded(parts: Iterable[Any], *, path: Path, size: Callable[[Any], int]) -> Iterator[Any]:
    """Pass on what comes out of a packed file.

    Raises:
        KronpressError: it is more than a text can have become when it was packed.
    """
    packed, found = path.stat().st_size, 0
    for part in parts:
        found += size(part)
        if found > _LARGEST or found > max(_UNSUSPECTED, _HIGHEST_RATIO * packed):
            raise KronpressError(
                f"'{path}' has {packed:,} bytes and becomes more than {found:,} when it is unpacked; "
                "check that it is a text, unpack it yourself, or cut it into parts"
            )
        yield part


def is_packed(path: Path) -> bool:
    """Tell whether a file is unpacked when it is read."""
    return path.suffix.lower() == ".gz"


def ending_of(path: Path) -> str:
    """Return the ending of a file's name that stands for its format, in lower case."""
    return (path.with_suffix("") if is_packed(path) else path).suffix.lower()


def _decoded_stream(path: Path) -> Iterator[str]:
    """Yield the text of a file, unpacked, without a byte-order mark and with its line ends as they are."""
    decoder, lines, place = codecs.getincrementaldecoder("utf-8-sig")(), 1, 0
    for part in chain(_bytes(path), [b""]):
        try:
            yield decoder.decode(part, final=not part)
        except UnicodeDecodeError as error:
            before = place + len(part) - len(error.object)  # the end of the part before may have been half a character
            line = lines + error.object.count(b"\n", 0, error.start)
            raise not_utf8(path, line=line, byte=before + error.start) from None
        lines, place = lines + part.count(b"\n"), place + len(part)


def _bytes(path: Path) -> Iterator[bytes]:
    try:
        with gzip.open(path) if is_packed(path) else path.open("rb") as stream:
            parts = iter(lambda: stream.read(_BLOCK), b"")
            yield from bounded(parts, path=path, size=len) if is_packed(path) else parts
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise KronpressError(f"'{path}' can not be unpacked ({error}); give a whole gzip file") from None
    except OSError as error:
        raise KronpressError(f"'{path}' can not be read: {error.strerror}; check its permissions") from None


def _lines(parts: Iterable[str]) -> Iterator[str]:
    """Yield the lines of a stream, without their ends."""
    rest = ""
    for part in parts:
        *whole, rest = (rest + part).split("\n")
        yield from whole
    yield rest


def _parquet_rows(path: Path, *, whole: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise KronpressError(f"'{path}' needs the package pyarrow; pip install pyarrow") from None
    try:
        with parquet.ParquetFile(path) as file:
            _require_text(file.schema_arrow.names, str(path))
            batches = file.iter_batches(batch_size=_ROWS, columns=None if whole else ["text"])
            rows = (row for batch in batches for row in batch.to_pylist())
            for number, row in enumerate(bounded(rows, path=path, size=lambda row: 1 + len(str(row["text"])))):
                yield f"{path}, row {number}", row
    except (OSError, arrow.lib.ArrowException) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise KronpressError(f"'{path}' can not be read ({reason[:200]}); give a whole Parquet file") from None


def text_of(record: Mapping[str, Any], place: str) -> str:
    """Return the string under `text`.

    Raises:
        KronpressError: there is none, or it has half of a surrogate pair.
    """
    text = record.get("text")
    if not isinstance(text, str):
        if text is None:
            _require_text(record, place)
        raise KronpressError(f"{place}: 'text' is a {type(text).__name__} and no string; mend or remove it")
    require_characters(text, place=place)
    return text


def _require_text(fields: Iterable[str], place: str) -> None:
    found = list(fields)
    if "text" not in found:
        offer = f"the fields {listed(found)}" if found else "no field at all"
        raise KronpressError(f"{place}: no field 'text' with a string in it, but {offer}; rename the field to 'text'")
