"""Models of a task side by side: what they go on from after an interruption, and what is left out."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kronpress.checkpoint import load
from kronpress.errors import KronpressError
from kronpress.finetune import Finetune, comparison
from kronpress.finetune.data import TaskData
from kronpress.records import FinetuneRecord, SeedScore, encode
from kronpress.step import Workbench
from tests.finetune.words import step, work
from tests.tiny import bench, tiny_bert, weights_files


class StopError(Exception):
    """The process went away."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, and a step that stopped before its second seed."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "SST-2").mkdir()
    for name in ("train", "dev"):
        lines = [f"{('sun', 'moon')[index % 2]} and sky\t{index % 2}" for index in range(16)]
        (folder / "SST-2" / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *lines]) + "\n")
    calls = []
    original = comparison.train

    def stop_at_the_second(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise StopError
        return original(*arguments, **options)

    with pytest.MonkeyPatch.context() as patched, pytest.raises(StopError):
        patched.setattr(comparison, "train", stop_at_the_second)
        run(folder, folder / "step")
    return folder


def run(home: Path, folder: Path) -> FinetuneRecord:
    work: Workbench = bench(tiny_bert(), folder)
    fields = {"losses": "cross_entropy", "teacher": None, "epochs": 1, "seeds": 2, "batch": 8, "log_every": 1}
    return Finetune(tasks="sst-2", data=str(home), **fields).run(work)


DAMAGE = [
    ("settings.json", "[]"),
    ("settings.json", "{"),
    ("settings.json", "3"),
    ("seed-0/result.json", "[]"),
    ("seed-0/result.json", '{"format_version": 1, "seed": 0, "score": "high", "scores": {"accuracy": 1.0}}'),
    ("seed-0/result.json", '{"format_version": 1, "seed": 0, "score": 50.0}'),
    ("seed-0/result.json", "\x00"),
    ("seed-0/dev.jsonl", "3\n"),
    ("seed-0/dev.jsonl", '{"step": 2, "score": "high"}\n'),
]


def test_damage_is_named_and_the_remedy_works(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "step", tmp_path / "step")
    work = tmp_path / "step" / "sst-2" / ".work" / "student"
    for name, content in DAMAGE:
        whole = (work / name).read_bytes()
        (work / name).write_text(content)
        if name.endswith("dev.jsonl"):
            (work / "seed-0" / "result.json").rename(tmp_path / "result.json")
        with pytest.raises(KronpressError, match=rf"{re.escape(str(work / name))}.*(restore|remove)"):
            run(home, tmp_path / "step")
        (work / name).write_bytes(whole)
        if name.endswith("dev.jsonl"):
            (tmp_path / "result.json").rename(work / "seed-0" / "result.json")
    (work / "seed-0" / "result.json").unlink()
    (row,) = run(home, tmp_path / "step").tasks[0].models
    assert [seed.seed for seed in row.seeds] == [0, 1]
    finished = tmp_path / "step" / "sst-2" / "student.json"
    for content in ("[]", json.dumps(encode(row) | {"seeds": []}), json.dumps(encode(row) | {"settings": 3})):
        finished.write_text(content)
        with pytest.raises(KronpressError, match=rf"{re.escape(str(finished))} is damaged at '.*'; restore it, or"):
            run(home, tmp_path / "step")


def test_an_interrupted_step_goes_on_to_the_same_end(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields: dict[str, Any] = {"save_every": 4, "log_every": 2, "epochs": 2}
    whole = step(data, **fields).run(work(tmp_path / "whole"))
    count = iter(range(1000))
    original = TaskData.measure

    def breaking(self: Any, model: Any, features: Any) -> Any:
        if next(count) in (1, 5):  # in a first training, and between two models
            raise KeyboardInterrupt
        return original(self, model, features)

    monkeypatch.setattr(TaskData, "measure", breaking)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            step(data, **fields).run(work(tmp_path / "broken"))
    again = step(data, **fields).run(work(tmp_path / "broken"))
    for one, other in zip(whole.tasks[0].models, again.tasks[0].models, strict=True):
        assert [_timeless(score) for score in one.seeds] == [_timeless(score) for score in other.seeds]
    places = [weights_files(tmp_path / name / "step" / "sst-2" / "student")[0] for name in ("whole", "broken")]
    assert places[0].read_bytes() == places[1].read_bytes()


def _timeless(score: SeedScore) -> SeedScore:
    assert score.training is not None
    return replace(score, training=replace(score.training, seconds=0, tokens_per_second=None, peak_rss_bytes=0))


def diverging(monkeypatch: pytest.MonkeyPatch, *broken: int) -> list[int]:
    """Let the model be not a number from these measurements on, counted from 0; return those made so far."""
    measured, made = TaskData.measure, list[int]()

    def measure(self: Any, model: Any, features: Any) -> Any:
        made.append(len(made))
        if made[-1] in broken:
            next(iter(model.parameters())).data.fill_(torch.nan)
        return measured(self, model, features)

    monkeypatch.setattr(TaskData, "measure", measure)
    return made


def test_a_run_that_diverges_is_left_out_and_told(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = diverging(monkeypatch, 0, 1)
    fine = step(data, seeds=3, epochs=2, teacher=None, losses={"cross_entropy": 1})
    (found,) = fine.run(work(tmp_path)).tasks
    (row,) = found.models
    assert len(made) == 1 + 1 + 2, "the first two seeds end with their first measurement"
    assert [each.seed for each in row.seeds] == [2] and row.diverged == 2
    assert row.score.value == row.seeds[0].score and row.best_seed == 2 and row.score.deviation is None


def test_a_run_that_diverges_late_has_its_best_epoch(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = diverging(monkeypatch, 1)
    fine = step(data, seeds=1, epochs=3, teacher=None, losses={"cross_entropy": 1})
    (found,) = fine.run(work(tmp_path)).tasks
    (row,) = found.models
    assert row.diverged == 0 and row.seeds[0].epoch == 1 and len(made) == 2
    saved = load(tmp_path / "step" / "sst-2" / "student")
    assert all(value.isfinite().all() for value in saved.state_dict().values())


def test_where_all_runs_diverge_the_step_stops_and_says_so(data: Path, tmp_path: Path) -> None:
    fine = step(
        data, seeds=2, learning_rate=1e30, warmup=0, max_grad_norm=1e30, teacher=None, losses={"cross_entropy": 1}
    )
    for _ in range(2):  # also where it is resumed
        with pytest.raises(
            KronpressError, match=r"'student' diverged with every seed; .* below 1e\+30 and a new folder"
        ):
            fine.run(work(tmp_path))


def test_a_folder_with_other_settings_data_or_teacher_is_refused(data: Path, tmp_path: Path) -> None:
    bench = work(tmp_path)
    step(data, seeds=1, epochs=1).run(bench)
    again = step(data, seeds=1, epochs=1).run(bench).tasks[0].models
    assert [row.model for row in again] == ["teacher", "student"]
    for fields, named in (
        ({"learning_rate": 0.001}, "'student' fine-tuned with other learning_rate;"),
        ({"seeds": 2}, "'teacher' fine-tuned with other seeds;"),
        ({"losses": {"logits": 1}}, "'student' fine-tuned with other losses;"),
        ({"warmup": 0.5}, "'teacher' fine-tuned with other warmup;"),
    ):
        with pytest.raises(KronpressError, match=named):
            step(data, **({"seeds": 1, "epochs": 1} | fields)).run(bench)
    with torch.no_grad():
        bench.student.bert.embeddings.word_embeddings.weight[0] += 1  # type: ignore[union-attr]
    with pytest.raises(KronpressError, match="'student' fine-tuned with other start;"):
        step(data, seeds=1, epochs=1).run(bench)
    (data / "SST-2" / "dev.tsv").write_text("sentence\tlabel\nsun\t0\nmoon\t1\n")
    with pytest.raises(KronpressError, match="'teacher' fine-tuned with other data; name another folder"):
        step(data, seeds=1, epochs=1).run(bench)
