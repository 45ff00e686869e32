"""A cleaning that is killed at any moment goes on to the same bytes."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from kronpress.data.cleaning import Cleaning, clean, near, reading
from kronpress.errors import KronpressError
from tests.data.cleaning.text import changed, prose
from tests.dying import killed

SETTINGS = Cleaning.model_validate({"shard_megabytes": 0.01, "duplicates": {"name": "minhash", "bands": 4}})
EVERY = 6  # changes of the file system between two kills


@pytest.fixture
def source(tmp_path: Path) -> Path:
    draw, texts = random.Random(0), prose(40)
    texts += [changed(text, draw) for text in texts[::3]] + texts[::5]
    (tmp_path / "text.txt").write_text("\n\n".join(["<div>", *texts]) + "\n", encoding="utf-8")
    return tmp_path / "text.txt"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.name != "report.json"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that are copies of this one")
def test_a_kill_at_any_moment_changes_nothing(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near, "BLOCK", 16)
    clean(str(source), SETTINGS, tmp_path / "whole")
    expected, out, at = contents(tmp_path / "whole"), tmp_path / "out", 1
    while killed(lambda: clean(str(source), SETTINGS, out, resume=True), out, at=at):
        clean(str(source), SETTINGS, out, resume=True)
        assert contents(out) == expected, f"killed before change {at}"
        shutil.rmtree(out)
        at += EVERY
    assert at > 60 and contents(out) == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that are copies of this one")
def test_kills_again_and_again_come_to_an_end(source: Path, tmp_path: Path) -> None:
    clean(str(source), SETTINGS, tmp_path / "whole")
    out, kills = tmp_path / "out", 0
    while killed(lambda: clean(str(source), SETTINGS, out, resume=True), out, at=30):
        kills += 1
        assert kills < 20, "each time some more is done"
    assert kills > 2 and contents(out) == contents(tmp_path / "whole")


def test_a_stream_that_has_changed_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.txt").write_text("\n\n".join(prose(40)))
    state = os.stat(tmp_path / "text.txt")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(reading.disk, "write_json", interrupting(2))
        clean(str(tmp_path / "text.txt"), SETTINGS, tmp_path / "out")
    texts = prose(40)
    (tmp_path / "text.txt").write_text("\n\n".join([*texts[1:], texts[0]]))
    os.utime(tmp_path / "text.txt", ns=(state.st_atime_ns, state.st_mtime_ns))
    with pytest.raises(KronpressError, match=r"text.txt' is no longer the text that the cleaning began with"):
        clean(str(tmp_path / "text.txt"), SETTINGS, tmp_path / "out", resume=True)


def interrupting(parts: int) -> object:
    """Return a function that writes JSON, until so many parts are whole."""
    write, left = reading.disk.write_json, parts

    def write_json(path: Path, value: object) -> None:
        nonlocal left
        write(path, value)
        left -= path.stem.isdigit()
        if left == 0:
            raise KeyboardInterrupt

    return write_json
