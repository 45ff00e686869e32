"""Cleaning from a source to the files that are trained on."""

from __future__ import annotations

import gzip
import json
import random
import re
from pathlib import Path

import pytest

from kronpress import disk
from kronpress.data import read_text
from kronpress.data.cleaning import Cleaning, clean, is_cleaned, preview, report_of
from kronpress.errors import KronpressError, shown
from kronpress.lock import locked
from kronpress.records import CleaningReport, decode
from kronpress.validation import parse
from tests.data.cleaning.text import changed, prose

SMALL = Cleaning(shard_megabytes=0.004)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Text of every kind, with HTML, bad text and duplicates in it."""
    draw, folder = random.Random(0), tmp_path / "source"
    folder.mkdir()
    texts = prose(60)
    texts[10:10] = ["<div>menu</div>", "* * *", texts[3], changed(texts[4], draw), "░▒▓█ 12 █▓▒░", texts[3]]
    (folder / "a.txt").write_text("\n\n".join(texts) + "\n", encoding="utf-8")
    records = [{"id": number, "text": text} for number, text in enumerate([*prose(20, seed=1), *texts[:2]])]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (folder / "c.md").write_text("The end of it all,\nas the last page of the book says.\n", encoding="utf-8")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file but the report, whose times differ."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "report.json"}


def test_text_and_records_are_cleaned_into_files_that_are_read_again(source: Path, tmp_path: Path) -> None:
    report = clean(str(source), SMALL, tmp_path / "out")
    files = contents(tmp_path / "out")
    assert list(report.shards) == sorted(files) and {Path(name).suffix for name in files} == {".txt", ".jsonl"}
    assert [(row.reason, row.documents) for row in report.went] == [
        ("html", 1),
        ("words", 1),
        ("symbols", 1),
        ("exact duplicate", 4),
        ("near duplicate", 1),
    ]
    assert report.read.documents == report.stayed.documents + 8 == 60 + 6 + 22 + 1
    texts = prose(60)
    expected = [*texts, *prose(20, seed=1), "The end of it all,\nas the last page of the book says."]
    assert read_text(str(tmp_path / "out")).text == "\n\n".join(expected) + "\n"
    records = [
        json.loads(line) for name in sorted(files) if name.endswith("jsonl") for line in files[name].splitlines()
    ]
    assert [record["id"] for record in records] == list(range(20))
    stored = json.loads((tmp_path / "out" / "report.json").read_text())
    assert decode(CleaningReport, stored, place="report", remedy="") == report
    assert Cleaning.model_validate(report.settings) == SMALL


def test_the_report_shows_examples(source: Path, tmp_path: Path) -> None:
    report = clean(str(source), Cleaning(), tmp_path / "out")
    shown = {(went.reason, went.place.rpartition(", ")[2]): went for went in report.examples}
    assert shown["html", "line 21"].text == "<div>menu</div>"
    assert shown["exact duplicate", "line 25"].stays == f"{source / 'a.txt'}, line 7"
    assert shown["near duplicate", "line 27"].stays == f"{source / 'a.txt'}, line 9"
    assert shown["exact duplicate", "line 31"].text == prose(60)[3][:200]
    assert sum(went.reason == "exact duplicate" for went in report.examples) == 3


def test_lines_stay_lines(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("one two\nthree\n\nfour  \n<div>\nfive")
    clean(str(tmp_path / "lines.txt"), Cleaning(unit="line"), tmp_path / "out")
    assert contents(tmp_path / "out") == {"00000.txt": b"one two\nthree\nfour  \nfive\n"}


def test_the_same_text_gives_the_same_bytes(source: Path, tmp_path: Path) -> None:
    for name in ("one", "other"):
        clean(str(source), SMALL, tmp_path / name)
    assert contents(tmp_path / "one") == contents(tmp_path / "other")


def test_a_preview_reports_the_same_and_leaves_nothing(source: Path, tmp_path: Path) -> None:
    before = preview(str(source), SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
    report = clean(str(source), SMALL, tmp_path / "out")
    assert (before.went, before.stayed, before.shards, before.examples) == (
        report.went,
        report.stayed,
        report.shards,
        report.examples,
    )


def test_filters_of_one_kind_are_counted_apart(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n\n".join(["one", "one two three four", "two", "* * *", *prose(2)]))
    filters = [{"name": "words", "min": 2}, {"name": "words", "max": 3, "min": 1}, "words", "symbols", "symbols"]
    report = clean(str(tmp_path / "a.txt"), Cleaning.model_validate({"filters": filters}), tmp_path / "out")
    assert [(row.reason, row.documents) for row in report.went] == [("words (min 2)", 3), ("words (max 3)", 3)]
    assert report.stayed.documents == report.stayed.bytes == 0
    assert {example.reason for example in report.examples} == {row.reason for row in report.went}
    one = {"name": "language", "code": "en", "from_words": 5}
    assert list(Cleaning.model_validate({"filters": [one, "words"], "language": "en"}).every_filter()) == [
        'language (code "en", from_words 5)',
        "words",
        'language (code "en")',
    ]


def test_a_text_of_which_nothing_stays(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("* * *\n\n<div>\n")
    report = clean(str(tmp_path / "a.txt"), Cleaning(), tmp_path / "out")
    assert report.stayed.documents == 0 and contents(tmp_path / "out") == {}


def test_a_finished_folder_is_kept_and_not_mixed_up(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = clean(str(source), SMALL, out)
    before = contents(out)
    assert clean(str(source), SMALL, out, resume=True) == report
    for other, settings, words in (
        (source / "a.txt", SMALL, re.escape(f"out holds a cleaning of {shown(str(source))};")),
        (source, Cleaning(), "out holds a cleaning with shard_megabytes: 0.004, not 32"),
        (
            source,
            SMALL.model_copy(update={"filters": SMALL.filters[:1]}),
            "with filters 2 name: 'repetition', not None",
        ),
    ):
        with pytest.raises(KronpressError, match=words):
            clean(str(other), settings, out, resume=True)
    with pytest.raises(KronpressError, match="out already holds a cleaning; add --resume, or name a new folder"):
        clean(str(source), SMALL, out)
    (source / "a.txt").write_text("another text")
    with pytest.raises(KronpressError, match=r"a.txt has changed since .*out was begun; clean the text into a new"):
        clean(str(source), SMALL, out, resume=True)
    (source / "a.txt").unlink()
    with pytest.raises(KronpressError, match=r"a.txt has changed since"):
        clean(str(source), SMALL, out, resume=True)
    assert contents(out) == before and is_cleaned(out)


def test_the_report_of_a_finished_folder_is_read_again(source: Path, tmp_path: Path) -> None:
    assert clean(str(source), SMALL, tmp_path / "out") == report_of(tmp_path / "out")
    with pytest.raises(KronpressError, match="source holds no finished cleaning; finish it with --resume, or name"):
        report_of(source)
    (tmp_path / "out" / "report.json").write_text("{}")
    with pytest.raises(KronpressError, match=r"out/report.json.*; clean the text into a new folder"):
        report_of(tmp_path / "out")


def test_folders_that_can_not_be_used_are_named(source: Path, tmp_path: Path) -> None:
    with pytest.raises(KronpressError, match=r"lies in .*source, which is to be cleaned; name a folder outside"):
        clean(str(source), SMALL, source / "out")
    with pytest.raises(KronpressError, match="already holds files"):
        clean(str(source), SMALL, tmp_path, resume=True)
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(KronpressError, match="is empty; name a file"):
        clean(str(tmp_path / "empty.txt"), SMALL, tmp_path / "out")
    assert not (tmp_path / "out").exists(), "a corrected command can use the folder"
    with locked(tmp_path / "busy"), pytest.raises(KronpressError, match="busy is in use by process"):
        clean(str(source), SMALL, tmp_path / "busy")


@pytest.mark.parametrize("pattern", ["*/*.txt", "*/*", "*/0000[1-9].jsonl", "ou?/*1.txt", "link/*/*.txt"])
def test_a_folder_whose_files_would_match_the_source_is_refused(pattern: str, source: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "oux").mkdir()
    for name in ("source/00001.jsonl", "oux/01.txt"):
        (tmp_path / name).write_text('{"text": "one"}')
    with pytest.raises(KronpressError, match=r"files in .*out would match '.*', which is to be cleaned; name a folder"):
        clean(str(tmp_path / pattern), SMALL, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    for out in ("out.d/deep", ".out"):
        clean(str(tmp_path / pattern), SMALL, tmp_path / out)
        clean(str(tmp_path / pattern), SMALL, tmp_path / out, resume=True)


def test_a_preview_asks_for_room(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = sum(path.stat().st_size for path in source.iterdir())
    for free, refused in ((2 * size, False), (2 * size - 1, True)):
        monkeypatch.setattr(disk, "free_bytes", lambda _, free=free: free + disk.MARGIN_BYTES)
        if refused:
            with pytest.raises(KronpressError, match="MB are free; free some space or set TMPDIR to a folder"):
                preview(str(source), SMALL)
        else:
            preview(str(source), SMALL)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"html": "stict"}, "unknown rule for HTML 'stict': did you mean 'strict'"),
        ({"filters": "words"}, "filters are 'words'; give a list of them: words, repetition, symbols, language"),
        ({"filters": [{"name": "words", "low": 1}]}, "filters words: unknown key 'low'"),
        ({"duplicates": None}, "duplicates is None; give a name or a mapping with one"),
    ],
)
def test_wrong_settings_are_named(fields: dict[str, object], words: str) -> None:
    with pytest.raises(KronpressError, match=words):
        parse(Cleaning, fields, place="clean")
