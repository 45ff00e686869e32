"""Checkpoints of a training: the mark, what is wrong with one, and a full disk."""

from __future__ import annotations

import errno
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import SafetensorError

from kronpress.checkpoint import files
from kronpress.errors import KronpressError
from kronpress.train.checkpoints import MARK, fault, mark, newest_whole, saving

Usage = namedtuple("Usage", "total used free")


def checkpoint(folder: Path, step: int, *, whole: bool = True) -> Path:
    path = folder / f"checkpoint-{step}"
    (path / "shards").mkdir(parents=True)
    (path / "model.safetensors").write_bytes(b"weights" * step)
    (path / "shards" / "0.bin").write_bytes(b"shard" * step)
    if whole:
        mark(path)
    return path


def test_a_whole_one_has_no_fault_and_the_newest_is_taken(tmp_path: Path) -> None:
    for step in (10, 2, 9):
        assert fault(checkpoint(tmp_path, step)) is None
    (tmp_path / "checkpoint-draft").mkdir()
    assert newest_whole(tmp_path) == tmp_path / "checkpoint-10"


def test_there_is_nothing_to_go_on_from_in_an_empty_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert newest_whole(tmp_path / "none") is None
    assert capsys.readouterr().out == ""


def truncate(path: Path) -> None:
    (path / "model.safetensors").write_bytes(b"w")


def flip(path: Path) -> None:
    content = bytearray((path / "shards" / "0.bin").read_bytes())
    content[-1] ^= 1
    (path / "shards" / "0.bin").write_bytes(content)


def lose(path: Path) -> None:
    (path / "model.safetensors").unlink()


def unmark(path: Path) -> None:
    (path / MARK).unlink()


def blot(path: Path) -> None:
    (path / MARK).write_text('{"model')


def replace(path: Path) -> None:
    (path / MARK).write_text("3")


def forget(path: Path) -> None:
    (path / MARK).write_text("{}")


def forget_one(path: Path) -> None:
    digests = files.read_json(path / MARK)
    files.write_json(path / MARK, {name: digest for name, digest in digests.items() if "model" not in name})


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (forget, "does not tell of model.safetensors"),
        (forget_one, "does not tell of model.safetensors"),
        (truncate, "model.safetensors is not as it was written"),
        (flip, "shards/0.bin is not as it was written"),
        (lose, "model.safetensors is missing"),
        (unmark, "was not written to its end"),
        (blot, "cannot be read"),
        (replace, "cannot be read"),
    ],
)
def test_a_harmed_one_is_left_out_by_name_for_the_one_before(
    harm: Callable[[Path], None], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, last = checkpoint(tmp_path, 4), checkpoint(tmp_path, 8)
    harm(last)
    assert newest_whole(tmp_path) == before
    printed = capsys.readouterr().out
    assert f"warning: {last} is left out: " in printed
    assert reason in printed
    harm(before)
    assert newest_whole(tmp_path) is None
    assert "the training starts over" in capsys.readouterr().out


def test_a_new_one_is_marked_before_the_second_last_goes(tmp_path: Path) -> None:
    first, second, third = (tmp_path / f"checkpoint-{step}" for step in (1, 2, 3))
    for path in (first, second, third):
        with saving(path, needed=1):
            checkpoint(tmp_path, int(path.name[-1]), whole=False)
            assert [fault(old) for old in (first, second) if old.exists() and old != path].count(None) >= (
                path != first
            )
    assert not first.exists()
    assert [fault(path) for path in (second, third)] == [None, None]


def test_what_was_left_out_neither_counts_nor_stays(tmp_path: Path) -> None:
    good, cut = checkpoint(tmp_path, 4), checkpoint(tmp_path, 6, whole=False)
    newer = checkpoint(tmp_path, 8)
    truncate(newer)
    (cut / "stale.bin").write_bytes(b"of an earlier attempt")
    with saving(cut, needed=1):
        assert not cut.exists()
        checkpoint(tmp_path, 6, whole=False)
    assert sorted(tmp_path.iterdir()) == [good, cut]
    assert newest_whole(tmp_path) == cut


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError(errno.EFBIG, "File too large"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:743] . PytorchStreamWriter failed writing file data/1"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_full_disk_leaves_the_one_before_and_says_what_to_do(error: Exception, tmp_path: Path) -> None:
    good = checkpoint(tmp_path, 4)
    message = r"checkpoint-8.* 12\.0 MB, and .* MB are free; free some .* --resume"
    with pytest.raises(KronpressError, match=message), saving(tmp_path / "checkpoint-8", needed=12_000_000):
        checkpoint(tmp_path, 8, whole=False)
        raise error
    assert list(tmp_path.iterdir()) == [good]
    assert newest_whole(tmp_path) == good


def test_too_little_space_is_seen_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9 - 1000, 1000))
    message = r"takes about 0\.1 MB, and 0\.0 MB are free"
    with pytest.raises(KronpressError, match=message), saving(tmp_path / "checkpoint-8", needed=100_000):
        raise AssertionError("nothing is written")
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_with_the_mark_is_a_full_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "write_json", full)
    with pytest.raises(KronpressError, match="--resume"), saving(tmp_path / "checkpoint-8", needed=1):
        checkpoint(tmp_path, 8, whole=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [OSError(errno.EACCES, "Permission denied"), RuntimeError("shapes differ")])
def test_another_error_is_not_taken_for_a_full_disk(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error), match=str(error.args[-1])), saving(tmp_path / "checkpoint-8", needed=1):
        raise error
