"""Large texts are read as small ones are, but from files."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kronpress.data import Corpus, read_text, split_held_out
from kronpress.data.corpus import FilePart
from kronpress.data.formats import joined
from kronpress.errors import KronpressError

LINES = "".join(f"line {number}, é\n" + "\n" * (number % 3 == 0) for number in range(40))
RECORDS = '{"text": "one\\n"}\n\n{"text": "  \\n"}\n{"text": "\\ntwo\\n\\n lines"}\n{"text": "three"}\n'


def plain(folder: Path) -> str:
    (folder / "a.txt").write_text(LINES, encoding="utf-8")
    return str(folder / "a.txt")


def with_carriage_returns(folder: Path) -> str:
    (folder / "a.txt").write_bytes(LINES.replace("\n", "\r\n").encode())
    return str(folder / "a.txt")


def with_a_mark(folder: Path) -> str:
    (folder / "a.txt").write_bytes(("\ufeff" + LINES).encode())
    return str(folder / "a.txt")


def packed(folder: Path) -> str:
    (folder / "a.txt.gz").write_bytes(gzip.compress(LINES.encode()))
    return str(folder / "a.txt.gz")


def records(folder: Path) -> str:
    (folder / "a.jsonl").write_text(RECORDS)
    return str(folder / "a.jsonl")


def rows(folder: Path) -> str:
    return parquet(folder, [" = Title = \n", "", " a line . \n", " "])


def documents(folder: Path) -> str:
    return parquet(folder, ["a line\n", "two\nlines\n", " ", ""])


def parquet(folder: Path, texts: list[str]) -> str:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({"text": texts}), folder / "a.parquet")
    return str(folder / "a.parquet")


def below_a_folder(folder: Path) -> str:
    (folder / "texts").mkdir()
    records(folder / "texts")
    for name, text in {"b.txt": f"\n\n{LINES}\n\n", "blank.md": " \n\n ", "c.txt": " \nlast"}.items():
        (folder / "texts" / name).write_text(text, encoding="utf-8")
    return str(folder / "texts")


def several(folder: Path) -> str:
    return f"{below_a_folder(folder)}, {plain(folder)}, bundled:python-reference"


SOURCES = [plain, with_carriage_returns, with_a_mark, packed, records, rows, documents, below_a_folder, several]


@pytest.mark.parametrize("write", SOURCES, ids=lambda write: write.__name__)
def test_every_source_has_the_same_text_from_a_file(
    write: Callable[[Path], str], tmp_path: Path, large_texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path)
    large, again = read_text(source), read_text(source)
    monkeypatch.undo()
    small = read_text(source)
    assert large.is_large and not small.is_large
    assert (large.name, large.text, large.fingerprint) == (small.name, small.text, small.fingerprint)
    assert large == again and large_texts.exists() == (write is not plain), "only what is no plain file is copied"


@given(
    st.lists(st.lists(st.sampled_from(["", "\n", " ", "a", "b\n", "\n\nc"]), max_size=4), max_size=4),
)
def test_documents_are_joined_alike_in_pieces(pieces: list[list[str]]) -> None:
    whole = ["".join(document) for document in pieces]
    expected = "\n\n".join(text.strip("\n") for text in whole if text.strip()) + "\n"
    assert "".join(joined(pieces)) == (whole[0] if len(whole) == 1 else expected)


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5, 0.999])
def test_a_large_text_is_cut_at_the_same_line(
    fraction: float, tmp_path: Path, large_texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "a.txt"
    source.write_text(LINES.replace("é", "e"))
    kept, held_out = split_held_out(read_text(str(source)), fraction=fraction)
    again = split_held_out(max(kept, held_out, key=lambda part: part.size))
    assert kept.is_large or held_out.is_large
    monkeypatch.undo()
    small = split_held_out(read_text(str(source)), fraction=fraction)
    assert [(part.name, part.text, part.fingerprint) for part in (kept, held_out)] == [
        (part.name, part.text, part.fingerprint) for part in small
    ]
    assert "".join(part.text for part in again) in [part.text for part in small], "a part of a part"


def test_a_single_large_line_is_not_cut(tmp_path: Path, large_texts: Path) -> None:
    (tmp_path / "a.txt").write_text("a" * 100 + "\n")
    with pytest.raises(KronpressError, match="has no line boundary"):
        split_held_out(read_text(str(tmp_path / "a.txt")))


@pytest.mark.parametrize("write", [plain, records])
def test_a_changed_file_is_another_text(write: Callable[[Path], str], tmp_path: Path, large_texts: Path) -> None:
    path = Path(write(tmp_path))
    before, status = read_text(str(path)), path.stat()
    path.write_text(path.read_text(encoding="utf-8").replace("o", "u").replace("l", "1"), encoding="utf-8")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # as old as before, and as large
    assert read_text(str(path)).fingerprint != (before.fingerprint if write is records else None)


def test_a_file_that_changes_during_a_run_is_noticed(tmp_path: Path, large_texts: Path) -> None:
    path = Path(plain(tmp_path))
    corpus = read_text(str(path))
    path.write_text(LINES + "more", encoding="utf-8")
    with pytest.raises(KronpressError, match=r"a\.txt' has changed while it was read; start again"):
        list(corpus.pieces())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a line\n" * 5 + b"caf\xe9\n", "line 6: not UTF-8 at byte 38; convert it"),
        (b"a line\n" * 5 + "é".encode()[:1], "line 6: not UTF-8 at byte 35"),
        (b" \n" * 20, "is empty"),
        (b"a\0" * 20, "is full of control characters"),
        (b"a\0\r\n" * 20, "is full of control characters"),
    ],
)
def test_bad_large_files_are_named(content: bytes, message: str, tmp_path: Path, large_texts: Path) -> None:
    (tmp_path / "bad.txt").write_bytes(content)
    with pytest.raises(KronpressError, match=rf"bad\.txt.*{message}"):
        read_text(str(tmp_path / "bad.txt"))
    assert not list(large_texts.rglob("*.txt"))


def test_a_bad_line_far_behind_leaves_nothing(tmp_path: Path, large_texts: Path) -> None:
    (tmp_path / "bad.jsonl").write_text(RECORDS + '{"txt": 1}\n')
    with pytest.raises(KronpressError, match=r"bad\.jsonl, line 6: no field 'text'"):
        read_text(str(tmp_path / "bad.jsonl"))
    assert not [path for path in large_texts.rglob("*") if path.is_file()]


def test_a_long_line_is_found_across_blocks(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"a" * (2**21 + 5) + b"\n" + b"b" * 10 + b"\n" + b"c" * (2**20 + 7))
    part = FilePart.whole(path)
    middle = 2**21 + 6
    assert part.line_starts(5) == {0, middle}
    assert part.line_starts(middle) == {middle, middle + 11}
    assert part.line_starts(part.size - 1) == {middle + 11}


def test_pieces_of_a_text_in_memory_are_the_text() -> None:
    corpus = Corpus("a", "text")
    assert list(corpus.pieces()) == ["text"] and corpus.size == 4 and not corpus.is_large
