"""The documents of every kind of source."""

from __future__ import annotations

import datetime
import decimal
import gzip
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from kronpress.data.cleaning import Cleaning, clean
from kronpress.data.cleaning.batch import batches
from kronpress.data.cleaning.documents import Document, as_json, documents_of
from kronpress.errors import KronpressError

TEXT = "\n\none\ntwo\n \n\t\n\nthree\r\n\r\n  four\n"


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("paragraph", [("one\ntwo", 3), ("three", 8), ("  four", 10)]),
        ("line", [("one", 3), ("two", 4), ("three", 8), ("  four", 10)]),
    ],
)
def test_plain_text_is_cut_into_units(unit: str, expected: list[tuple[str, int]], tmp_path: Path) -> None:
    path = tmp_path / "text.txt.gz"
    path.write_bytes(gzip.compress(TEXT.encode()))
    documents = list(documents_of(str(path), unit=unit))
    assert documents == [Document(text, f"{path}, line {line}") for text, line in expected]


def test_units_do_not_depend_on_how_the_file_is_read(tmp_path: Path) -> None:
    text = "".join(f"{'word ' * (number % 400)}{number}\n\n" for number in range(6000))  # some MB
    (tmp_path / "long.txt").write_text(text)
    documents = list(documents_of(str(tmp_path), unit="paragraph"))
    assert [document.text for document in documents] == text.rstrip("\n").split("\n\n")
    assert documents[-1].place.endswith(f"line {2 * 6000 - 1}")


def test_a_file_without_paragraphs_is_told_from_one_with_long_ones(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("a line\n" * 2_600_000)
    with pytest.raises(KronpressError, match=r"lines.txt, line 1: a paragraph of more than 16,777,216.*unit: line"):
        list(documents_of(str(tmp_path), unit="paragraph"))


def test_records_are_documents_with_all_their_fields(tmp_path: Path) -> None:
    records = [{"text": "one\n\ntwo", "id": 1}, {"text": " "}, {"text": "three", "more": ["x", None]}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    documents = list(documents_of(str(tmp_path), unit="paragraph"))
    assert [json.loads(document.record or "") for document in documents] == [records[0], records[2]]
    assert documents[1].place == f"{tmp_path / 'a.jsonl'}, line 3"


def test_rows_of_parquet_keep_their_columns(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({"text": ["one", "two"], "id": [1, 2]}), tmp_path / "a.parquet")
    assert [document.record for document in documents_of(str(tmp_path), unit="line")] == [
        '{"text": "one", "id": 1}',
        '{"text": "two", "id": 2}',
    ]


def test_lines_of_json_stay_as_they_are_written(tmp_path: Path) -> None:
    lines = [
        r'{"text": "one", "meta": "\ud800", "more": {"\udfff": [1]}}',
        '{"text":"two","large":1e400,"exact":0.12345678901234567890,"count":123456789012345678901234567890}',
        '{"text": "three", "not written": NaN, "näme": "ü\u2028"}',
    ]
    (tmp_path / "a.jsonl").write_text(f" {lines[0]}\r\n{lines[1]}\n\n{lines[2]}", encoding="utf-8")
    assert [document.record for document in documents_of(str(tmp_path), unit="line")] == lines
    clean(str(tmp_path / "a.jsonl"), Cleaning(), tmp_path / "out")
    assert (tmp_path / "out" / "00000.jsonl").read_text(encoding="utf-8").split("\n") == [*lines, ""]


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("ü", '"ü"'),
        ("\ud800", '"\\ud800"'),
        (datetime.date(2026, 1, 2), '"2026-01-02"'),
        (decimal.Decimal("1.50"), '"1.50"'),
        ([{"a": None}], '[{"a": null}]'),
    ],
)
def test_rows_become_json(value: object, line: str) -> None:
    written = as_json({"text": "one", "more": value}, place="table, row 1")
    assert written == f'{{"text": "one", "more": {line}}}' and written.encode()


@pytest.mark.parametrize("value", [float("inf"), float("nan"), b"bytes", {b"key": 1}])
def test_a_row_that_is_no_json_is_named(value: object) -> None:
    with pytest.raises(KronpressError, match=r"table, row 1: a value that no JSON can hold .*; mend it, or leave its"):
        as_json({"text": "one", "more": value}, place="table, row 1")


def test_the_hub_is_streamed_without_an_end_in_sight(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*names: str, **options: object) -> object:
        assert names == ("owner/name", "small") and options == {"split": "test", "streaming": True}
        return ({"text": "a" * 10**7, "number": number} for number in range(12))

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    source = "hub:owner/name/small#test"
    places = [document.place for document in documents_of(source, unit="line")]
    assert places == [f"{source}, row {number}" for number in range(12)], "more than the 10^8 characters of read_text"


def test_a_batch_has_text_or_records(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    (tmp_path / "b.jsonl").write_text('{"text": "three"}\n')
    (tmp_path / "c.txt").write_text("four\n")
    cut = [batch.texts for batch in batches(documents_of(str(tmp_path), unit="paragraph"))]
    assert cut == [["one", "two"], ["three"], ["four"]]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("nowhere.txt", "there is no text at 'nowhere.txt'"),
        ("bundled:nothing", "unknown bundled text 'nothing'"),
        ("hub:", "names no data set"),
    ],
)
def test_what_is_no_source_is_named(source: str, words: str) -> None:
    with pytest.raises(KronpressError, match=words):
        list(documents_of(source, unit="line"))


def test_a_record_without_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"content": "two"}\n')
    with pytest.raises(KronpressError, match=r"a.jsonl, line 2: no field 'text'"):
        list(documents_of(str(tmp_path), unit="line"))
