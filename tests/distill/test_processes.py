"""Training in several processes, as torchrun starts them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from kronpress.distill import Distill
from kronpress.errors import KronpressError
from kronpress.run.execution import execute
from kronpress.run.recipe import read_recipe
from kronpress.train import read_log
from kronpress.train.checkpoints import MARK
from tests.tiny import TEXT, bench, save_tiny, tiny_llama, weights_files

RECIPE = """
precision: fp32  # what is faster is measured anew by every process
model: {folder}/model
data: {{train: {folder}/text.txt}}
steps:
- {{step: factorize, sites: all, form: {{name: kronecker, right: [2, 2], terms: 2}}}}
- {{step: distill, tokens: 5120, window: 32, batch: 4, micro_batch: 2, save_every: 4, validate_every: 10,
   validation_windows: 4, losses: {{logits: {{}}, cross_entropy: 0.3}}}}
- {{step: distill, tokens: 1280, window: 32, batch: 4, micro_batch: 2, losses: {{hidden: {{layers: [[2, 2]]}}}}}}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    save_tiny(tmp_path / "model", tiny_llama())
    (tmp_path / "text.txt").write_text(TEXT)
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(folder=tmp_path))
    return tmp_path / "recipe.yaml"


def two(recipe: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "kronpress", "run"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *command, str(recipe), "--out", str(out), *more],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def kill_at_a_checkpoint(process: subprocess.Popen[str], out: Path) -> None:
    deadline = time.monotonic() + 120
    while not any(out.glob(f"steps/01-distill/trainer/checkpoint-*/{MARK}")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    for child in children(process.pid):
        os.kill(child, signal.SIGKILL)
    process.communicate(timeout=60)


def children(parent: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def reports(out: Path) -> list[dict[str, Any]]:
    return [json.loads((out / f"steps/0{index}-distill/report.json").read_text())["record"] for index in (1, 2)]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for the processes in /proc")
def test_two_processes_killed_and_resumed_train_like_one(recipe: Path, tmp_path: Path) -> None:
    one = execute(read_recipe(recipe), tmp_path / "one").folder
    kill_at_a_checkpoint(two(recipe, tmp_path / "two"), tmp_path / "two")
    resumed = two(recipe, tmp_path / "two", "--resume")
    printed = resumed.communicate(timeout=240)[0]
    assert resumed.returncode == 0, printed
    assert printed.count("step 3/3: distill") == 1, "one process speaks"
    assert printed.count("model:") == 1
    assert "going on from" in printed
    for ours, theirs in zip(reports(tmp_path / "two"), reports(one), strict=True):
        for key in ("curve", "validation"):
            assert [point["tokens"] for point in ours[key]] == [point["tokens"] for point in theirs[key]]
            losses = [point["loss"] for point in theirs[key]]
            assert [point["loss"] for point in ours[key]] == pytest.approx(losses, rel=1e-4)
        assert ours["parts"] == pytest.approx(theirs["parts"], rel=1e-4)
    first, second = (load_file(*weights_files(folder / "checkpoint")) for folder in (one, tmp_path / "two"))
    assert all((first[name] - second[name]).abs().max() <= 1e-4 for name in first)
    assert [line["step"] for line in read_log(tmp_path / "two/steps/02-distill/train.jsonl")] == [2, 4, 6, 8, 10]


def test_a_mistake_ends_all_processes_and_is_told_once(recipe: Path, tmp_path: Path) -> None:
    failed = two(recipe, tmp_path / "run", "-o", "steps.1.batch=3", "-o", "steps.1.micro_batch=1")
    printed = failed.communicate(timeout=120)[0]
    assert failed.returncode == 1
    assert printed.count("a batch of 3 does not divide among 2 processes") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["FSDP", "DEEPSPEED"])
def test_shards_are_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    with pytest.raises(KronpressError, match=f"{name} is not supported"):
        Distill(tokens=64, window=32).check(bench(tiny_llama(), tmp_path))
