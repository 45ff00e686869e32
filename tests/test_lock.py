"""One folder, one process; a lock that nobody holds is no obstacle."""

from __future__ import annotations

import errno
import json
import os
import platform
from pathlib import Path
from typing import Any

import pytest

from kronpress.errors import KronpressError
from kronpress.lock import NOTE, locked
from tests.dying import killed

fcntl = pytest.importorskip("fcntl")
NOBODY = 2**22 + 1  # more than Linux gives to any process


def leave(folder: Path, **facts: Any) -> None:
    """Leave the note of another process."""
    with locked(folder):
        note = json.loads((folder / NOTE).read_text()) | facts
        folder.joinpath("mine").write_text("mine")
    (folder / NOTE).write_text(json.dumps(note))


def test_a_second_one_is_told_who_is_there(tmp_path: Path) -> None:
    with locked(tmp_path / "run"):
        with pytest.raises(KronpressError, match=f"in use by process {os.getpid()} on {platform.node()}"):
            locked(tmp_path / "run").__enter__()
        assert (tmp_path / "run" / NOTE).exists()
    assert not list(tmp_path.iterdir()), "folders that stayed empty go again"
    with locked(tmp_path / "run"):
        pass


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    def hold() -> None:
        with locked(tmp_path / "run"):
            (tmp_path / "run" / "never").write_text("made")

    assert killed(hold, tmp_path, at=3)
    assert [path.name for path in (tmp_path / "run").iterdir()] == [NOTE]
    with locked(tmp_path / "run"):
        assert json.loads((tmp_path / "run" / NOTE).read_text())["pid"] == os.getpid()
    assert not list((tmp_path / "run").iterdir())


def test_the_note_of_another_machine_names_the_file_to_remove(tmp_path: Path) -> None:
    leave(tmp_path, host="elsewhere", pid=7)
    with pytest.raises(KronpressError, match=rf"process 7 on elsewhere.*remove {tmp_path / NOTE}"), locked(tmp_path):
        pass
    assert (tmp_path / NOTE).exists()


@pytest.mark.parametrize("note", ["", "{", "[]", '{"pid": 1}'])
def test_half_a_note_is_the_note_of_a_dead_process(note: str, tmp_path: Path) -> None:
    (tmp_path / NOTE).write_text(note)
    with locked(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_where_the_file_system_has_no_locks_the_note_is_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path):
        with pytest.raises(KronpressError, match=f"process {os.getpid()}"):
            locked(tmp_path).__enter__()
        assert (tmp_path / NOTE).exists()
    leave(tmp_path, pid=NOBODY)
    with locked(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    (tmp_path / NOTE).write_text("half")
    with pytest.raises(KronpressError, match="in use by another process"):
        locked(tmp_path).__enter__()


def test_a_folder_that_cannot_be_made_is_an_error_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match="Not a directory"):
        locked(tmp_path / "file" / "run").__enter__()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
