"""The command that cleans text."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from kronpress.data.cleaning import reading
from tests.cli.test_bad_input import call
from tests.data.cleaning.text import prose


@pytest.fixture
def text(tmp_path: Path) -> Path:
    texts = prose(20)
    (tmp_path / "text.txt").write_text("\n\n".join([*texts, "<div>x</div>", texts[0]]) + "\n")
    return tmp_path / "text.txt"


def words(shown: str) -> str:
    return " ".join(shown.split())


def test_it_cleans_and_says_what_went(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert call(monkeypatch, "clean", text, "--out", out, "--json", tmp_path / "report.json") == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    for line in (
        "│ read │ 22 │ 100.00% │",
        "│ html │ 1 │ 4.55% │",
        "│ stayed │ 20 │ 90.91% │",
        f"html: {text}, line 41 <div>x</div>",
        f"exact duplicate: {text}, line 43 ({text}, line 1 stays)",
        "duplicates: minhash (threshold 0.8, bands 16, latest 128, shingle 3, rows 4, seed 0, min_words 8)",
        f"done text: {out}",
    ):
        assert line in words(shown.out)
    assert json.loads((tmp_path / "report.json").read_text()) == json.loads((out / "report.json").read_text())
    assert call(monkeypatch, "clean", text, "--out", out, "--resume") == 0
    assert "it was finished already; nothing was done" in capsys.readouterr().out


def test_a_dry_run_writes_nothing(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "settings.yaml").write_text("unit: line\nfilters: [{name: words, min: 3}]\nshard_megabytes: 4\n")
    options = [
        "--settings",
        tmp_path / "settings.yaml",
        "--unit",
        "paragraph",
        "--duplicates",
        "none",
        "--html",
        "none",
    ]
    before = sorted(tmp_path.iterdir())
    assert call(monkeypatch, "clean", text, "--dry-run", "--filters", "words", "--threshold", "0.5") == 0
    assert call(monkeypatch, "clean", text, "--dry-run", *options, "--filters", "none") == 0
    shown = words(capsys.readouterr().out)
    assert "threshold 0.5" in shown and "shard_megabytes: 4.0" in shown
    assert "unit: paragraph html: none language: any duplicates: none" in shown
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "the clean text needs a folder; name one with --out, or ask for a --dry-run"),
        (["--dry-run", "--resume"], "--dry-run writes nothing that --resume could go on with"),
        (["--dry-run", "--html", "some"], "unknown rule for HTML 'some'"),
        (["--dry-run", "--duplicates", "exact", "--threshold", "0.5"], "duplicates exact: unknown key 'threshold'"),
        (["--dry-run", "--filters", "words,x"], "unknown filter 'x'"),
        (["--dry-run", "--settings", "nowhere.yaml"], "'nowhere.yaml' can not be read"),
    ],
)
def test_mistakes_are_named(
    options: list[str], message: str, text: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "clean", text, *options) == 1
    assert message in words(capsys.readouterr().err)


def test_an_interrupted_cleaning_goes_on(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> object:
        os.kill(os.getpid(), signal.SIGINT)

    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(reading, "batches", interrupted)
        assert call(patched, "clean", text, "--out", out) == 130
    assert "interrupted; the same command with --resume goes on with the cleaning" in capsys.readouterr().err
    assert call(monkeypatch, "clean", text, "--out", out) == 1
    assert "out already holds a cleaning; add --resume" in words(capsys.readouterr().err)
    assert call(monkeypatch, "clean", text, "--out", out, "--resume") == 0
