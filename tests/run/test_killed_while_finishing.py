"""A run that is killed while it writes down its result, at every moment, is finished by the same command."""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from pathlib import Path

import pytest
import torch

import kronpress
from kronpress import cli
from kronpress.run.execution import execute
from kronpress.run.recipe import read_recipe
from tests.dying import killed
from tests.tiny import TEXT, save_tiny, tiny_llama, weights_files

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that are copies of this one")

RECIPE = """
model: {0}/model
data: {{train: {0}/text.txt}}
steps:
- {{step: factorize, sites: feed_forward, form: {{name: kronecker, right: [2, 2], terms: 1}}}}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    torch.set_num_threads(1)
    save_tiny(tmp_path / "model", tiny_llama(num_hidden_layers=1))
    (tmp_path / "text.txt").write_text(TEXT)
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(tmp_path))
    return tmp_path / "recipe.yaml"


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def compress(recipe: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = str(recipe.parent / "model")
    monkeypatch.setattr(
        sys, "argv", ["kronpress", "compress", model, "--recipe", str(recipe), "--out", str(out), "--resume"]
    )
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code


@pytest.mark.parametrize("stride", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_a_run_killed_at_any_moment_is_finished_by_the_next_command(
    stride: int, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compress(recipe, tmp_path / "whole", monkeypatch)
    out = tmp_path / "out"
    at = first = random.randint(1, stride)
    print(f"the first kill comes before change {at}")
    kills, progress = 0, ""
    while killed(lambda: compress(recipe, out, monkeypatch), out, at=at):
        kills += 1
        if (out / "config.json").exists():
            kronpress.verify(out)
        before, progress = progress, progress_of(out / "run" / "manifest.json")
        at = at + stride if progress == before else first  # from a new beginning, all moments come again
    assert kills >= 90 // stride
    assert names(out) == names(tmp_path / "whole")
    weights = [weights_files(folder)[0].read_bytes() for folder in (out, tmp_path / "whole")]
    assert weights[0] == weights[1]
    kronpress.verify(out)


def progress_of(manifest: Path) -> str:
    """What a manifest says of how far its run came."""
    if not manifest.exists():
        return ""
    content = json.loads(manifest.read_text())
    return f"{len(content['steps'])} steps, {content['finished']}"


def test_a_publication_killed_at_any_moment_is_finished_by_the_next_command(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(read_recipe(recipe, fields={"model": str(tmp_path / "model")}), tmp_path / "out" / "run")
    shutil.copytree(tmp_path / "out" / "run" / "checkpoint", tmp_path / "expected")
    out, at = tmp_path / "out", 1
    while killed(lambda: compress(recipe, out, monkeypatch), out, at=at):
        if (out / "config.json").exists():
            kronpress.verify(out)
        at += 1
    assert at > 10
    assert names(out) - {name for name in names(out) if name.startswith("run")} == {
        *names(tmp_path / "expected"),
        "report.html",
    }
