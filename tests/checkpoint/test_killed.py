"""A process that is killed while it writes a model, at every moment: nothing is left behind, and nothing is lost."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

import kronpress
from kronpress.checkpoint import files
from kronpress.export import DenseExporter
from tests.dying import killed
from tests.tiny import tiny_llama, tiny_tokenizer

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that are copies of this one")


def saved(model: PreTrainedModel, folder: Path) -> None:
    kronpress.save(model, folder, tokenizer=tiny_tokenizer())


def exported(model: PreTrainedModel, folder: Path) -> None:
    DenseExporter().write(model, folder)


@pytest.mark.parametrize(("write", "there"), [(saved, False), (exported, True)], ids=["saved", "exported"])
def test_a_kill_at_any_moment_leaves_all_or_nothing_and_the_next_try_succeeds(
    write: Callable[[PreTrainedModel, Path], None], there: bool, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    model: Any = tiny_llama(num_hidden_layers=1)
    write(model, tmp_path / "warm")  # what is imported late is imported now
    home, folder, at = tmp_path / "home", tmp_path / "home" / "model", 1
    (folder if there else home).mkdir(parents=True)
    while killed(lambda: write(model, folder), home, at=at):
        assert folder.is_dir() == there and not list(folder.glob("*"))
        at += 1
    assert at > 20
    assert [path.name for path in home.iterdir()] == ["model"]
    assert kronpress.verify(folder)["files"] >= 2


def test_what_an_earlier_version_of_the_folder_held_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    files.write_json(path, "old")
    at = 1
    while killed(lambda: files.write_json(path, "new"), tmp_path, at=at):
        assert files.read_json(path) == "old"
        at += 1
    assert files.read_json(path) == "new"
    assert list(tmp_path.iterdir()) == [path]
