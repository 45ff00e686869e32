from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from kronpress.checkpoint import load
from kronpress.finetune import comparison
from kronpress.finetune.best_epoch import BestEpoch
from kronpress.finetune.candidate import Candidate
from kronpress.finetune.comparison import Comparison
from kronpress.finetune.data import TaskData
from kronpress.tasks import TASKS, predict, with_head
from kronpress.train import read_log
from tests.finetune.words import step, work
from tests.tiny import tiny_bert, tiny_tokenizer


def test_a_model_learns_and_its_best_epoch_is_kept(data: Path, tmp_path: Path) -> None:
    bench = work(tmp_path)
    (found,) = step(data, epochs=1, seeds=1, teacher={"epochs": 6, "learning_rate": 0.01}).run(bench).tasks
    teacher = found.models[0]
    assert teacher.score.value >= 80.0
    task, place = TASKS["sst-2"], tmp_path / "step" / "sst-2" / "teacher"
    dev = task.read(str(data / "SST-2"), "dev")
    features = task.features(dev, tiny_tokenizer(), max_length=64)
    answers = task.answers(dev, features, predict(load(place), features))
    assert task.scores(dev, answers)["accuracy"] == pytest.approx(teacher.score.value)


def test_the_best_epoch_counts_not_the_last(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = iter([60.0, 90.0, 70.0])
    heads: list[torch.Tensor] = []

    def measure(self: TaskData, model: Any, features: Any) -> tuple[float, dict[str, float]]:
        heads.append(model.classifier.weight.detach().clone())
        score = next(told)
        return score, {"accuracy": score}

    monkeypatch.setattr(TaskData, "measure", measure)
    bench, fine = work(tmp_path), step(data, epochs=3, seeds=1)
    comparison = Comparison(
        plan=fine.plan("sst-2"),
        data=fine.read("sst-2"),
        folder=tmp_path / "step" / "sst-2",
        device=torch.device("cpu"),
        seeds=[0],
    )
    candidate = Candidate("teacher", bench.teacher, bench.tokenizer, fine.losses, epochs=3, learning_rate=0.001)
    teacher = with_head(bench.teacher, TASKS["sst-2"], bench.tokenizer, seed=9)
    row = comparison.row(candidate, teacher=teacher)
    assert (row.score.value, row.seeds[0].epoch) == (90.0, 2.0)
    assert comparison.opened("teacher").classifier.weight.equal(heads[1])  # type: ignore[union-attr]


def test_weights_of_a_lost_future_are_not_taken(data: Path, tmp_path: Path) -> None:
    """After a kill, the best weights are those that the log speaks of, also where a later, better file was written."""
    model = with_head(tiny_bert(), TASKS["sst-2"], tiny_tokenizer())
    scores = iter([50.0, 40.0, 90.0, 45.0])
    best_epoch = BestEpoch(tmp_path, model, measure=lambda: (next(scores), {}), every=1)
    state, control = TrainerState(max_steps=9, is_world_process_zero=True), TrainerControl()
    arguments = TrainingArguments(output_dir=str(tmp_path / "trainer"), report_to="none")
    marks = []
    for state.global_step in (1, 2, 3):
        with torch.no_grad():
            model.classifier.bias.fill_(state.global_step)  # type: ignore[operator,union-attr]
        best_epoch.on_step_end(arguments, state, control)
        if state.global_step == 2:
            (tmp_path / "trainer" / "checkpoint-2").mkdir(parents=True)
            best_epoch.on_save(arguments, state, control)
        marks.append(sorted(path.name for path in tmp_path.glob("best-*")))
    assert marks == [["best-1.safetensors"], ["best-1.safetensors"], ["best-1.safetensors", "best-3.safetensors"]]
    state.global_step = 2
    best_epoch.on_train_begin(arguments, state, control)
    state.global_step = 3
    best_epoch.on_step_end(arguments, state, control)
    best = best_epoch.take_best()
    assert (best["step"], best["score"]) == (1, 50.0)
    assert model.classifier.bias.tolist() == [1.0, 1.0]  # type: ignore[union-attr]
    best_epoch.on_save(arguments, state, control)
    assert [path.name for path in tmp_path.glob("best-*")] == ["best-1.safetensors"]


def test_the_log_has_every_epoch(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison.shutil, "rmtree", lambda *_, **__: None)
    step(data, seeds=1, epochs=2.5).run(work(tmp_path))
    lines = read_log(next((tmp_path / "step").rglob("teacher/seed-0/dev.jsonl")))
    assert [line["epoch"] for line in lines] == [1.0, 2.0, 2.5]
