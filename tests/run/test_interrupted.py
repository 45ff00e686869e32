"""A run that was stopped at any moment goes on to the same bits."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kronpress.checkpoint import files
from kronpress.errors import KronpressError
from kronpress.evaluate import Evaluate
from kronpress.prune import Prune
from kronpress.run import execution
from kronpress.run.execution import execute
from kronpress.run.folder import Run
from kronpress.run.recipe import Recipe, read_recipe
from kronpress.train import read_log
from kronpress.train.checkpoints import MARK
from kronpress.train.trainer import DistillationTrainer
from tests.tiny import TEXT, save_tiny, tiny_gpt2, weights_files

RECIPE = """
precision: fp32  # what is faster is measured anew by every process
steps:
- {step: prune, form: kronecker, fit: {tokens: 512, window: 64}}
- {step: evaluate, max_windows: 1}
- {step: distill, tokens: 1280, window: 32, save_every: 4}
- {step: evaluate, max_windows: 1}
"""


class StopError(Exception):
    """The process went away."""


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """A recipe on a model with dropout, so that the random state must be restored too."""
    model = tiny_gpt2(n_positions=512, resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.1)
    save_tiny(tmp_path / "model", model)
    (tmp_path / "text.txt").write_text(TEXT)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    where = [f"model={tmp_path / 'model'}", f"data.train={tmp_path / 'text.txt'}"]
    return read_recipe(tmp_path / "recipe.yaml", overrides=where)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def weights(run: Run) -> bytes:
    return weights_files(run.checkpoint)[0].read_bytes()


def stopping(original: Callable[..., Any], *, at: int) -> Callable[..., Any]:
    """Return a function that does as `original` does but stops the process at call number `at`."""
    calls = iter(range(1, 100))

    def stop(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == at:
            raise StopError
        return original(*args, **kwargs)

    return stop


STOPS = [
    (Prune, "run", 1),
    (shutil, "rmtree", 3),
    (DistillationTrainer, "training_step", 6),
    (Evaluate, "run", 2),
    (execution, "save", 3),
    (execution, "write_report", 1),
    (files, "write_json", 12),
]


def test_a_stop_anywhere_changes_nothing(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = execute(recipe, tmp_path / "whole")
    for number, (owner, name, at) in enumerate(STOPS):
        folder = tmp_path / f"run{number}"
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, stopping(getattr(owner, name), at=at))
            with pytest.raises(StopError):
                execute(recipe, folder)
        run = execute(recipe, folder, resume=True)
        assert weights(run) == weights(whole), (owner, name, at)
        assert contents(run.folder).keys() == contents(whole.folder).keys(), (owner, name, at)
        assert run.manifest().finished
        assert [step.name for step in run.manifest().steps] == ["prune", "evaluate", "distill", "evaluate"]


def test_a_killed_process_is_resumed_to_the_same_bits(recipe: Recipe, tmp_path: Path) -> None:
    recipe = read_recipe(
        write(recipe, tmp_path / "long.yaml"), overrides=["distill.tokens=6400", "distill.save_every=10"]
    )
    whole = execute(recipe, tmp_path / "whole")
    killed = Run(tmp_path / "killed", recipe)
    command = [sys.executable, "-m", "kronpress", "run", str(tmp_path / "killed.yaml")]
    write(recipe, tmp_path / "killed.yaml")
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    with subprocess.Popen(
        [*command, "--out", str(killed.folder)], env=environment, stdout=subprocess.DEVNULL
    ) as process:
        try:
            wait_for(lambda: any(killed.step_folder(2).glob(f"trainer/checkpoint-*/{MARK}")), process)
        finally:
            process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    reached = read_log(killed.step_folder(2) / "train.jsonl")[-1]["step"]
    assert 0 < reached < 100
    assert not killed.manifest().finished
    assert weights(execute(recipe, killed.folder, resume=True)) == weights(whole)
    curves = [files.read_json(run.step_folder(2) / "report.json")["record"]["curve"] for run in (whole, killed)]
    assert curves[0] == curves[1]


def write(recipe: Recipe, path: Path) -> Path:
    path.write_text(recipe.to_yaml())
    return path


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_refused_resume_leaves_a_young_run_as_it_is(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched, pytest.raises(StopError):
        patched.setattr(Prune, "run", stopping(Prune.run, at=1))
        execute(recipe, tmp_path / "run")
    before = contents(tmp_path / "run")
    assert before
    (tmp_path / "text.txt").write_text(TEXT.replace("cube", "die"))
    with pytest.raises(KronpressError, match="has changed since it began"):
        execute(recipe, tmp_path / "run", resume=True)
    with pytest.raises(KronpressError, match="another recipe or other overrides"):
        execute(recipe.model_copy(update={"seed": 1}), tmp_path / "run", resume=True)
    with pytest.raises(KronpressError, match="add --resume"):
        execute(recipe, tmp_path / "run")
    assert contents(tmp_path / "run") == before


def test_a_foreign_manifest_is_not_resumed(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "manifest.json").write_text('{"name": "a web page"}')
    with pytest.raises(KronpressError, match="not the manifest of a run"):
        execute(recipe, tmp_path / "run", resume=True)
    assert contents(tmp_path / "run") == {"manifest.json": b'{"name": "a web page"}'}
