"""What a fine-tuned student learns from: which teacher, run or stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kronpress.errors import KronpressError
from kronpress.finetune import comparison
from kronpress.tasks import TASKS, predict, with_head
from kronpress.teacher import task_outputs
from kronpress.train import training
from tests.finetune.words import step, work
from tests.tiny import save_tiny, tiny_bert, tiny_llama

INSIDE = {"logits": 0.5, "embedding": 1, "hidden": {"of": "blocks", "metric": "relative"}}


def test_a_teacher_from_elsewhere_is_scored_and_learned_from(data: Path, tmp_path: Path) -> None:
    first = work(tmp_path / "one")
    scores = step(data, seeds=1).run(first).tasks[0].models[0]
    source = str(tmp_path / "one" / "step" / "{task}" / "teacher")
    found = step(data, seeds=1, teacher=source).run(work(tmp_path / "two")).tasks[0].models
    assert [row.model for row in found] == ["teacher", "student"]
    assert found[0].score.value == pytest.approx(scores.score.value) and found[0].seeds[0].seed is None
    assert not (tmp_path / "two" / "step" / "sst-2" / "teacher").exists()


def test_a_teacher_with_another_head_is_refused(data: Path, tmp_path: Path) -> None:
    bench = work(tmp_path)
    plain = str(save_tiny(tmp_path / "plain", tiny_bert()))
    with pytest.raises(KronpressError, match="not one fine-tuned for 'sst-2'"):
        step(data, teacher=plain).run(bench)


def test_a_teacher_from_elsewhere_reads_the_padding_of_the_students_tokenizer(data: Path, tmp_path: Path) -> None:
    """A decoder's head reads the last token that is not padding, which a teacher's own files may name wrongly."""
    first = []
    for padding in (None, 0, 256):
        bench = work(tmp_path / str(padding), build=tiny_llama)
        teacher = with_head(bench.teacher, TASKS["sst-2"], bench.tokenizer)
        teacher.config.pad_token_id = padding
        teacher.save_pretrained(tmp_path / f"teacher-{padding}")
        bench.tokenizer.save_pretrained(tmp_path / f"teacher-{padding}")
        fine = step(data, teacher=str(tmp_path / f"teacher-{padding}"), seeds=1, epochs=1, log_every=1)
        (row,) = [row for row in fine.run(bench).tasks[0].models if row.model == "student"]
        assert row.seeds[0].teacher == "run at every step"  # for one pass
        first.append(row.seeds[0].training.curve[0].loss)
    np.testing.assert_allclose(first, first[0], rtol=1e-5)


def test_logits_alone_need_no_teacher_in_memory(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running: list[int] = []
    original = comparison.TaskDistillation

    def noted(student: Any, teacher: Any, losses: Any) -> Any:
        running.append(0 if teacher is None else len(teacher.models))
        return original(student, teacher, losses)

    monkeypatch.setattr(comparison, "TaskDistillation", noted)
    runs: list[int] = []
    monkeypatch.setattr(task_outputs, "predict", lambda *a, **k: runs.append(1) or predict(*a, **k))
    step(data, epochs=1, losses={"logits": 0.5, "cross_entropy": 0.5}, baselines={"more": {"losses": "logits"}}).run(
        work(tmp_path)
    )
    assert running == [0] * 6
    assert len(runs) == 1  # for both seeds and both models


def test_the_teacher_has_a_dropout_of_its_own(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float | None] = []
    own = training.dropping
    monkeypatch.setattr(training, "dropping", lambda model, rate: rates.append(rate) or own(model, rate))
    options = {"epochs": 0.5, "seeds": 1, "dropout": 0.0, "baselines": {"plain": {}}}
    step(data, **options).run(work(tmp_path / "a"))
    step(data, **options, teacher={"dropout": 0.2}).run(work(tmp_path / "b"))
    assert rates == [None, 0.0, 0.0, 0.2, 0.0, 0.0]


def test_a_teacher_is_run_once_and_its_students_learn_the_same(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for name, limit in (("kept", 4 * 2**30), ("run at every step", 0)):
        runs: list[int] = []
        monkeypatch.setattr(task_outputs, "predict", lambda *a, r=runs, **k: r.append(1) or predict(*a, **k))
        report = step(data, losses=INSIDE, log_every=4, cache_max_bytes=limit).run(work(tmp_path / name))
        (row,) = (row for row in report.tasks[0].models if row.model == "student")
        found.append([seed.training.curve[-1].loss for seed in row.seeds])
        assert runs == ([1] if limit else [])
    np.testing.assert_allclose(*found, rtol=0.02)


def test_plain_fine_tuning_needs_no_teacher(data: Path, tmp_path: Path) -> None:
    plain = {"cross_entropy": 1}
    found = step(data, teacher=None, losses=plain, seeds=1, epochs=1).run(work(tmp_path)).tasks[0].models
    assert [row.model for row in found] == ["student"]
    with pytest.raises(ValueError, match="loss 'logits' of the student compares with a teacher; give teacher"):
        step(data, teacher=None)
    with pytest.raises(ValueError, match="loss 'logits' of the other compares"):
        step(data, teacher=None, losses=plain, baselines={"other": {"losses": {"logits": 1}}})
