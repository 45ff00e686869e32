from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError
from transformers import PreTrainedModel

import kronpress
from kronpress import KronpressError
from kronpress.checkpoint import files
from tests.tiny import logits, tiny_llama


def test_a_folder_that_holds_something_is_left_untouched(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(KronpressError, match="already holds files, which are left untouched"):
        kronpress.save(tiny_llama(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(KronpressError, match="is a file; name a folder"):
        kronpress.save(tiny_llama(), tmp_path / "mine.txt")
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_an_empty_folder_and_missing_parents_do(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "some" / "where"):
        assert kronpress.save(tiny_llama(), folder) == folder
        kronpress.verify(folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "some"]


def test_a_disk_that_is_too_small_is_named_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(KronpressError, match="needs about 17 MB but only 0 MB are free"):
        kronpress.save(tiny_llama(), tmp_path / "saved")
    assert not list(tmp_path.iterdir())


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
INTERRUPTIONS = [
    (FULL, KronpressError),
    (SafetensorError("I/O error: No space left on device"), KronpressError),
    (KeyboardInterrupt(), KeyboardInterrupt),
    (RuntimeError("a bug"), RuntimeError),
]


@pytest.mark.parametrize(("raised", "seen"), INTERRUPTIONS, ids=lambda value: getattr(value, "__name__", repr(value)))
def test_an_interrupted_save_leaves_nothing_behind(
    raised: BaseException, seen: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_short(_: PreTrainedModel, folder: Path, **__: Any) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise raised

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", cut_short)
    with pytest.raises(seen):
        kronpress.save(tiny_llama(), tmp_path / "saved")
    assert not list(tmp_path.iterdir())


def test_the_card_is_saved_too_and_may_be_edited(tmp_path: Path) -> None:
    folder = kronpress.save(tiny_llama(), tmp_path / "saved", card="# a model\n")
    assert (folder / "README.md").read_text() == "# a model\n"
    (folder / "README.md").write_text("# my model\n")
    kronpress.verify(folder)


def test_saving_does_not_change_what_the_model_answers(tmp_path: Path) -> None:
    model = tiny_llama().train()
    expected = logits(tiny_llama())
    kronpress.save(model, tmp_path / "saved")
    assert model.training
    assert logits(model).equal(expected)


def test_others_may_read_the_folder(tmp_path: Path) -> None:
    folder = kronpress.save(tiny_llama(), tmp_path / "saved")
    assert folder.stat().st_mode & 0o777 == 0o755
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}


def test_text_is_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "new" / "facts.json"
    files.write_json(target, {"ü": 1})
    assert files.read_json(target) == {"ü": 1}

    def fail(*_: Any) -> None:
        raise FULL

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        files.write_json(target, {"ü": 2})
    assert files.read_json(target) == {"ü": 1}


def test_unreadable_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(KronpressError, match=r"facts\.json does not exist"):
        files.read_json(tmp_path / "facts.json")
    (tmp_path / "facts.json").write_text("{")
    with pytest.raises(KronpressError, match=r"facts\.json is not valid JSON"):
        files.read_json(tmp_path / "facts.json")
