"""A run whose process is killed again and again, at moments nobody chose, ends as one that nobody touched."""

from __future__ import annotations

import multiprocessing
import random
import signal
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from kronpress import cli
from kronpress.checkpoint import files
from kronpress.train import read_log
from tests.tiny import TEXT, save_tiny, tiny_gpt2, weights_files

KILLS = 8
CONTEXT = multiprocessing.get_context("forkserver")
RECIPE = """
precision: fp32
model: {folder}/model
data: {{train: {folder}/text.txt}}
steps:
- {{step: factorize, sites: all, form: {{name: kronecker, right: [2, 2], terms: 2}}}}
- step: distill
  tokens: 12800
  window: 32
  batch: 4
  micro_batch: 2
  save_every: 4
  validate_every: 10
  validation_windows: 2
  losses: {{logits: {{top_k: 16}}, cross_entropy: 0.2}}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    save_tiny(tmp_path / "model", tiny_gpt2(resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.1))
    (tmp_path / "text.txt").write_text(TEXT)
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(folder=tmp_path))
    return tmp_path / "recipe.yaml"


def warm_up() -> None:
    """Wait for the imports."""
    CONTEXT.set_forkserver_preload(["kronpress.cli.work.run", "kronpress.train.trainer"])
    process = CONTEXT.Process(target=int)
    process.start()
    process.join()


def start(recipe: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> BaseProcess:
    """Run the command in a process of its own, forked from one that has imported everything already."""
    monkeypatch.setattr(sys, "argv", ["kronpress", "run", str(recipe), "--out", str(out), "--resume"])
    process = CONTEXT.Process(target=cli.main)
    process.start()
    return process


def steps_done(log: Path) -> int:
    """Return the last step in a log that another process may be writing; -1 where there is none."""
    return max((line["step"] for line in read_log(log)), default=-1)


def outcome(folder: Path) -> tuple[bytes, list[dict[str, Any]], dict[str, Any], set[str]]:
    """What must not depend on kills: weights, the log and the record without times, and which files there are."""
    clock = {"seconds", "tokens_per_second", "peak_rss_bytes"}
    step = folder / "steps" / "01-distill"
    lines = [{key: value for key, value in line.items() if key not in clock} for line in read_log(step / "train.jsonl")]
    report = files.read_json(step / "report.json")
    record = {key: value for key, value in report["record"].items() if key not in clock}
    names = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    return weights_files(folder / "checkpoint")[0].read_bytes(), lines, record, names


def test_a_run_killed_at_random_moments_ends_as_one_that_was_not(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm_up()
    start(recipe, tmp_path / "whole", monkeypatch).join()
    seed = random.randrange(2**32)
    draw = random.Random(seed)
    print(f"the moments are drawn with seed {seed}")
    log = tmp_path / "killed" / "steps" / "01-distill" / "train.jsonl"
    for beyond in sorted(draw.sample(range(-20, 90), KILLS)):
        process = start(recipe, tmp_path / "killed", monkeypatch)
        process.join(draw.uniform(0, 0.2))
        while process.is_alive() and steps_done(log) <= beyond:
            process.join(draw.uniform(0, 0.02))
        process.kill()
        process.join()
        print(f"exit code {process.exitcode}, killed after step {steps_done(log)}")
        assert process.exitcode == -signal.SIGKILL
    last = start(recipe, tmp_path / "killed", monkeypatch)
    last.join()
    assert last.exitcode == 0
    assert len(outcome(tmp_path / "whole")[1]) == 50 + 10
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")
