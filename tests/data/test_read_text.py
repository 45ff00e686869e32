from __future__ import annotations

import gzip
import hashlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kronpress.data import Corpus, read_text, split_held_out
from kronpress.errors import KronpressError


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("utf-8"))
    return path


def test_bundled_reference_is_there_and_the_same_each_time() -> None:
    first, second = read_text("bundled:python-reference"), read_text("bundled:python-reference")
    assert first == second
    assert len(first.text) > 100_000
    assert first.fingerprint == hashlib.sha256(first.text.encode()).hexdigest()


def test_plain_files_are_read_as_they_are(tmp_path: Path) -> None:
    path = write(tmp_path / "a.md", "\ufeff = é = \r\n \r\nend\n\n")
    assert read_text(str(path)) == Corpus(str(path), " = é = \n \nend\n\n")


def test_records_are_joined_by_blank_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "one\\u2028"}\n\n{"text": "two\\n", "id": 2}\n')
    assert read_text(str(path)).text == "one\u2028\n\ntwo\n"


def test_folders_are_read_in_the_order_of_paths(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.md", "c.jsonl", "skipped.pdf", "empty.txt"):
        write(tmp_path / name, {"c.jsonl": '{"text": "c"}', "empty.txt": ""}.get(name, f"{name}\n"))
    assert read_text(str(tmp_path)).text == "a/z.md\n\nb.txt\n\nc\n"


def test_sources_are_joined_and_a_comma_in_a_name_is_no_trap(tmp_path: Path) -> None:
    one, two = write(tmp_path / "1.txt", "one\n"), write(tmp_path / "2.txt", "two")
    assert read_text(f"{one}, {two}").text == "one\n\ntwo\n"
    assert read_text(str(write(tmp_path / "3,4.txt", "three"))).text == "three"


def test_a_pattern_names_the_files_that_match(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "w.txt", "b.pdf"):
        write(tmp_path / "novels" / name, f"{name}\n")
    assert read_text(f"{tmp_path}/novels/[!w]*").text == "a.txt\n\nb.txt\n"
    assert read_text(f"{tmp_path}/novels/?.txt, {tmp_path}/novels/w.txt").text.count("w.txt") == 2
    with pytest.raises(KronpressError, match=r"no \.txt, .* file matches '.*novels/x\*'; mend the pattern"):
        read_text(f"{tmp_path}/novels/x*")


def test_paths_start_from_a_folder_where_one_is_given(tmp_path: Path) -> None:
    one, two = write(tmp_path / "in" / "1.txt", "one\n"), write(tmp_path / "2.txt", "two\n")
    assert read_text("1.txt", folder=tmp_path / "in") == Corpus("1.txt", "one\n")
    assert read_text(f"../2.txt, 1.txt, {one}, {two}", folder=tmp_path / "in").text == "two\n\none\n\none\n\ntwo\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bad.jsonl", '{"text": "a"}\n{"text": \n', r"bad\.jsonl, line 2: not JSON .* give one object a line"),
        ("bad.jsonl", '\n{"txt": "a"}\n', r"bad\.jsonl, line 2: no field 'text' .* the fields txt; rename"),
        ("bad.jsonl", "[1]\n", "line 1: a JSON list, not an object"),
        ("bad.jsonl", '{"text": "\\ud800"}\n', r"line 1: half of a surrogate pair"),
        ("bad.txt", " \n\n", r"bad\.txt' is empty; name a file"),
        ("bad.jsonl", '{"text": "a", "text": "b"}\n', "line 1: not JSON .the key 'text' is given twice"),
        ("bad.jsonl", '{"text": true}\n', "line 1: 'text' is a bool and no string"),
        ("bad.txt", "\0" * 100, r"bad\.txt' is full of control characters such as NUL; give plain text"),
        ("utf-16.txt", "\0".join("a text"), r"is full of control characters"),
        ("bad.jsonl", '{"text": "' + "\\u0001" * 20 + '"}', "is full of control characters"),
        ("bad.csv", "text", r"bad\.csv' is not a text .* \.txt, \.md, \.jsonl"),
        ("bad.txt.gz", "text", r"bad\.txt\.gz' can not be unpacked .*; give a whole gzip file"),
        ("bad.parquet", "text", r"bad\.parquet' can not be read .*; give a whole Parquet file"),
        ("bad.pdf", "text", r"bad\.pdf' is not a text .* \.txt, \.md, \.jsonl"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(KronpressError, match=message):
        read_text(str(write(tmp_path / name, content)))


def test_another_encoding_is_named_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes("caf\u00e9".encode("latin-1"))
    with pytest.raises(KronpressError, match=r"latin\.txt, line 1: not UTF-8 at byte 3; convert it"):
        read_text(str(path))


def test_missing_sources_suggest_a_neighbor(tmp_path: Path) -> None:
    write(tmp_path / "valid.txt", "text")
    with pytest.raises(KronpressError, match=r"no text at '.*vaild\.txt': did you mean 'valid\.txt'"):
        read_text(str(tmp_path / "vaild.txt"))
    with pytest.raises(KronpressError, match="does not exist either"):
        read_text(str(tmp_path / "nowhere" / "a.txt"))
    with pytest.raises(
        KronpressError, match=r"unknown bundled text 'python-referense': did you mean 'python-reference'"
    ):
        read_text("bundled:python-referense")
    with pytest.raises(KronpressError, match="has no name"):
        read_text(" ")


def test_empty_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(KronpressError, match=r"holds no \.txt, \.md, \.jsonl, .* file"):
        read_text(str(tmp_path))
    (tmp_path / "inner").mkdir()
    with pytest.raises(KronpressError, match="did you mean 'inner'"):
        read_text(str(tmp_path / "iner"))


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5, 0.99])
def test_held_out_part_begins_at_the_nearest_line(fraction: float) -> None:
    corpus = Corpus("digits", "".join(f"{number}\n" for number in range(1000)))
    train, held_out = split_held_out(corpus, fraction=fraction)
    assert train.text + held_out.text == corpus.text
    assert train.text.endswith("\n") and held_out.text
    assert len(held_out.text) == pytest.approx(fraction * len(corpus.text), abs=3)


def test_held_out_part_is_never_empty() -> None:
    assert [part.text for part in split_held_out(Corpus("two", "a long first line\nb\n"))] == [
        "a long first line\n",
        "b\n",
    ]
    with pytest.raises(KronpressError, match="'one' has no line boundary"):
        split_held_out(Corpus("one", "one line\n"))
    with pytest.raises(KronpressError, match=r"fraction of 1\.5 .* between 0 and 1"):
        split_held_out(Corpus("one", "a\nb"), fraction=1.5)


WIKI = " \n = Title = \n \n a line . \n"
ROWS = ["", " = Title = \n", "", " a line . \n"]  # as the hub has it


@pytest.mark.parametrize(
    "name", ["wiki.test.raw", "wiki.train.tokens", "ptb.train.txt", "a.text", "corpus", "ptb.valid"]
)
@pytest.mark.parametrize("packed", [False, True])
def test_files_of_the_data_sets_are_read_by_their_own_names(name: str, packed: bool, tmp_path: Path) -> None:
    path = tmp_path / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(WIKI.encode()) if packed else WIKI.encode())
    assert read_text(str(path)).text == WIKI


def test_packed_files_stand_in_folders_too(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n{"text": "b"}'))
    write(tmp_path / "wiki.test.raw", "c")
    write(tmp_path / "notes", "not named, not read")
    assert read_text(str(tmp_path)).text == "a\n\nb\n\nc\n"


@pytest.mark.parametrize(
    ("rows", "text"), [(ROWS, WIKI.replace(" \n", "\n", 1).replace("\n \n", "\n\n")), (["a\nb\n", "c"], "a\nb\n\nc\n")]
)
def test_rows_of_parquet_are_lines_or_documents(rows: list[str], text: str, tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({"text": rows, "id": list(range(len(rows)))}), tmp_path / "a.parquet")
    assert read_text(str(tmp_path / "a.parquet")).text == text


@pytest.mark.parametrize(
    ("column", "message"),
    [({"txt": ["a"]}, "no field 'text' .* the fields txt"), ({"text": ["a", None]}, "row 1: 'text' is a NoneType")],
)
def test_other_columns_of_parquet_are_named(column: dict[str, Any], message: str, tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table(column), tmp_path / "a.parquet")
    with pytest.raises(KronpressError, match=message):
        read_text(str(tmp_path / "a.parquet"))


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(KronpressError, match=r"needs the package pyarrow; pip install pyarrow"):
        read_text(str(write(tmp_path / "a.parquet", "")))


def test_a_packed_bomb_is_refused_before_it_is_large(tmp_path: Path) -> None:
    (tmp_path / "bomb.txt.gz").write_bytes(gzip.compress(bytes(2**27), compresslevel=1))
    with pytest.raises(KronpressError, match=r"becomes more than 6\d,\d+,\d+ when it is unpacked"):
        read_text(str(tmp_path / "bomb.txt.gz"))
    (tmp_path / "short.txt.gz").write_bytes(gzip.compress(b"text" * 1000)[:-9])
    with pytest.raises(KronpressError, match="can not be unpacked"):
        read_text(str(tmp_path / "short.txt.gz"))


@pytest.mark.parametrize("name", ["a" * 300, "a\0b", "~nobody-of-this-name/a.txt"])
def test_what_is_no_path_is_said(name: str) -> None:
    with pytest.raises(KronpressError, match=r"is no path|there is no text"):
        read_text(name)


def on_the_hub(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[Any]:
    """Put `answer`, rows or an error, in the place of the hub; return the list of what is asked of it."""
    asked: list[Any] = []

    def load_dataset(*names: str, **options: Any) -> Any:
        asked.append((names, options))
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    return asked


@pytest.mark.parametrize(
    ("source", "names", "split"),
    [
        ("hub:owner/name", ("owner/name",), "train"),
        ("hub:owner/name#test", ("owner/name",), "test"),
        ("hub:owner/name/configuration#test", ("owner/name", "configuration"), "test"),
    ],
)
def test_a_data_set_on_the_hub_is_streamed(
    source: str, names: tuple[str, ...], split: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = on_the_hub(monkeypatch, ({"text": text} for text in ["one", "two"]))
    assert read_text(source) == Corpus(source, "one\n\ntwo\n")
    assert asked == [(names, {"split": split, "streaming": True})]


def test_no_more_is_read_of_the_hub_than_there_is_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KRONPRESS_CACHE", str(tmp_path))
    on_the_hub(monkeypatch, iter(lambda: {"text": "a" * 10**7}, None))  # without an end
    assert len(read_text("hub:owner/name").text) == 10**8 + 2 * 9 + 1
    assert "the first 100,000,000 characters are read; to train on more, write it to files" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("source", "answer", "message"),
    [
        (
            "hub:owner/name",
            ConnectionError("no way\nto the hub"),
            r"can not be loaded \(no way\); check the name, .*split",
        ),
        ("hub:owner/name", [{"sentence": "a"}], "row 0: no column 'text', but sentence; name another"),
        ("hub:owner/name", [{"text": "a"}, {"text": 1}], "row 1: .text. is a int and no string"),
        ("hub:owner/name", [], "is empty"),
        ("hub:", [], "names no data set; name one as 'hub:OWNER/NAME'"),
        ("hub:a/b/c/d", [], "has 4 parts"),
    ],
)
def test_what_the_hub_does_not_give_is_said(
    source: str, answer: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_the_hub(monkeypatch, answer)
    with pytest.raises(KronpressError, match=message):
        read_text(source)


def test_without_datasets_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(KronpressError, match=r"needs the package datasets; pip install datasets"):
        read_text("hub:owner/name")
