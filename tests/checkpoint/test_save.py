from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError
from transformers import PreTrainedModel

import kronpress
from kronpress import KronpressError
from kronpress.checkpoint import files
from kronpress.export import DenseExporter, FoldedExporter
from kronpress.run.execution import execute
from kronpress.run.recipe import Recipe
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


def loop(home: Path) -> Path:
    (home / "loop").symlink_to(home / "loop")
    return home / "loop"


def below_a_loop(home: Path) -> Path:
    return loop(home) / "model"


def dangling(home: Path) -> Path:
    (home / "link").symlink_to(home / "nowhere")
    return home / "link"


def below_a_dangling_link(home: Path) -> Path:
    return dangling(home) / "model"


def below_a_file(home: Path) -> Path:
    (home / "file").write_text("mine")
    return home / "file" / "model"


def a_pipe(home: Path) -> Path:
    os.mkfifo(home / "pipe")
    return home / "pipe"


def closed(home: Path) -> Path:
    (home / "closed").mkdir(mode=0o500)
    return home / "closed" / "model"


PLACES = [
    (loop, "Too many levels of symbolic links"),
    (below_a_loop, "Too many levels of symbolic links"),
    (dangling, "is a link to .*nowhere, which does not exist"),
    (below_a_dangling_link, "is a link to .*nowhere, which does not exist"),
    (below_a_file, "Not a directory"),
    (a_pipe, "is a file; name a folder"),
    (closed, "no permission to write into .*closed"),
    (lambda home: home / ("a" * 256), "File name too long"),
    (lambda home: home / ("a" * 250), "File name too long"),
    (lambda home: home / "a\0b", "null"),
    (lambda home: Path(), "is the folder that you are in"),
]


@pytest.mark.skipif(os.name == "nt", reason="has other links and permissions")
@pytest.mark.parametrize(("place", "message"), PLACES)
def test_what_cannot_become_a_folder_is_told_before_anything_is_written(
    place: Callable[[Path], Path], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    folder = place(tmp_path)
    if place is closed:  # root may write everywhere
        monkeypatch.setattr(os, "access", lambda path, _: Path(path) != folder.parent)
    before = sorted(tmp_path.rglob("*"))
    for write in (kronpress.save, DenseExporter().write, FoldedExporter().write):
        with pytest.raises(KronpressError, match=message) as told:
            write(tiny_llama(num_hidden_layers=1), folder)
        assert len(str(told.value).replace(str(tmp_path), "")) < 400
    recipe = Recipe(model="nowhere", steps=({"step": "evaluate"},))
    if folder != Path():
        with pytest.raises(KronpressError, match=message):
            execute(recipe, folder)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_link_to_an_empty_folder_does(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    kronpress.save(tiny_llama(), tmp_path / "link")
    kronpress.verify(tmp_path / "disk")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "link"]


def test_two_that_save_to_one_folder_do_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, told = PreTrainedModel.save_pretrained, []

    def save_another_meanwhile(model: PreTrainedModel, folder: Path, **options: Any) -> None:
        original(model, folder, **options)
        with pytest.raises(KronpressError, match=f"in use by process {os.getpid()}") as error:
            kronpress.save(tiny_llama(seed=1), tmp_path / "saved")
        told.append(error)

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", save_another_meanwhile)
    kronpress.save(tiny_llama(), tmp_path / "saved")
    assert told
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]
    assert logits(kronpress.load(tmp_path / "saved")).equal(logits(tiny_llama()))


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
INTERRUPTIONS = [
    (FULL, KronpressError),
    (SafetensorError("I/O error: No space left on device"), KronpressError),
    (SafetensorError("I/O error (os error 28)"), KronpressError),
    (OSError("16384 requested and 512 written"), KronpressError),  # numpy's words for a full disk
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
    with pytest.raises(seen, match="No space left" if seen is KronpressError else None):
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
