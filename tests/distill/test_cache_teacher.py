"""A distill step whose teacher is asked once, before the training."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from kronpress.distill import Distill
from kronpress.errors import KronpressError
from kronpress.teacher import choice, frozen_copy
from kronpress.teacher.store import INDEX
from kronpress.train.trainer import DistillationTrainer
from tests.teacher.asking import Killed, asked
from tests.tiny import VOCABULARY, bench, tiny_bert, tiny_gpt2, tiny_llama

pytestmark = pytest.mark.usefixtures("in_float32")


def step(**fields: Any) -> Distill:
    fixed = {"tokens": 12 * 4 * 32, "window": 32, "batch": 4, "learning_rate": 5e-3, "save_every": 3}
    return Distill(**(fixed | {"losses": {"logits": {"top_k": 16}}} | fields))


def run(folder: Path, model: Callable[..., PreTrainedModel] = tiny_llama, **fields: Any) -> Any:
    work = bench(model(seed=1), folder, teacher=model(seed=2))
    chosen = step(**fields)
    chosen.check(work)
    torch.manual_seed(0)
    return chosen.run(work), work.student


def losses_of(report: dict[str, Any], *, curve: str = "curve") -> list[float]:
    return [point.loss for point in getattr(report, curve)]


CURVES: list[Any] = [
    pytest.param(tiny_llama, {}, id="llama"),
    pytest.param(tiny_gpt2, {"losses": {"logits": {"top_k": 8, "temperature": 2.0}, "cross_entropy": 0.3}}, id="hot"),
    pytest.param(tiny_llama, {"losses": {"logits": {"top_k": 8, "divergence": "reverse"}}}, id="reverse"),
    pytest.param(
        tiny_llama, {"losses": {"a": {"name": "logits", "top_k": 8}, "b": {"name": "logits", "top_k": 3}}}, id="two"
    ),
    pytest.param(tiny_bert, {}, id="bert"),
    pytest.param(tiny_bert, {"losses": {"logits": {"top_k": 8, "at": "labels"}}}, id="bert on labels"),
]


@pytest.mark.parametrize(("model", "fields"), CURVES)
def test_learning_from_stored_outputs_is_learning_from_the_teacher(
    model: Any, fields: dict[str, Any], tmp_path: Path
) -> None:
    there, _ = run(tmp_path / "there", model, **fields, validate_every=6)
    cached, _ = run(tmp_path / "cached", model, **fields, validate_every=6, cache_teacher=True)
    for curve in ("curve", "validation"):
        expected = losses_of(there, curve=curve)
        assert len(expected) >= 2
        assert losses_of(cached, curve=curve) == pytest.approx(expected, rel=0.02)
    assert cached.teacher.bytes > 0


def test_all_ids_give_the_whole_divergence(tmp_path: Path) -> None:
    whole, _ = run(tmp_path / "whole", losses="logits")
    cached, _ = run(tmp_path / "cached", losses={"logits": {"top_k": VOCABULARY}}, cache_teacher=True)
    assert losses_of(cached) == pytest.approx(losses_of(whole), rel=5e-3)


def test_several_epochs_ask_about_each_window_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = bench(tiny_llama(seed=1), tmp_path, teacher=tiny_llama(seed=2), text="some words of text. " * 20)
    windows = len(work.training_windows(size=32))
    found = asked(monkeypatch)
    report = step(cache_teacher=True).run(work)
    assert (windows, sum(found), report.teacher.windows) == (12, 12, 12)
    assert report.tokens == 4 * windows * 32


def test_no_copy_of_the_teacher_stays_while_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copies: list[Any] = []
    train: Callable[..., Any] = DistillationTrainer.train

    def copied(model: PreTrainedModel, device: torch.device) -> PreTrainedModel:
        teacher = frozen_copy(model, device)
        copies.append(weakref.ref(teacher))
        return teacher

    def train_alone(self: DistillationTrainer, **options: Any) -> Any:
        gc.collect()
        assert [reference() for reference in copies] == [None]
        assert self.objective.models == (self.objective.student,)
        return train(self, **options)

    monkeypatch.setattr(choice, "frozen_copy", copied)
    monkeypatch.setattr(DistillationTrainer, "train", train_alone)
    step(cache_teacher=True).run(bench(tiny_llama(seed=1), tmp_path, teacher=tiny_llama(seed=2)))


@pytest.mark.parametrize("model", [tiny_llama, tiny_bert])
def test_going_on_after_a_kill_ends_where_no_kill_would(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, expected = run(tmp_path / "whole", model, cache_teacher=True)
    calls, compute = iter(range(100)), DistillationTrainer.compute_loss

    def compute_or_die(self: DistillationTrainer, *arguments: Any, **options: Any) -> Any:
        if next(calls) == 7:
            raise Killed
        return compute(self, *arguments, **options)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(DistillationTrainer, "compute_loss", compute_or_die)
        run(tmp_path / "killed", model, cache_teacher=True)
    assert (tmp_path / "killed" / "trainer" / "teacher" / INDEX).exists()  # which the pipeline removes in the end
    found = asked(monkeypatch)
    _, resumed = run(tmp_path / "killed", model, cache_teacher=True)
    assert found == []
    for name, value in expected.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"losses": "logits"}, "the loss logits needs more of the teacher than its likeliest tokens"),
        ({"losses": "cross_entropy"}, "no loss compares with a teacher"),
        (
            {
                "losses": {
                    "a": {"name": "logits", "top_k": 2},
                    "b": {"name": "logits", "top_k": 2, "temperature": 3},
                }
            },
            r"the temperatures \[1\.0, 3\.0\]",
        ),
        ({"losses": {"logits": {"top_k": 265}}}, "top_k is 265 and the teacher's vocabulary has 264 tokens"),
        ({"cache_max_bytes": 100_000}, "101,376 bytes .48 windows, 32 tokens of each, 16 ids of each"),
        ({"cache_max_bytes": 110_000, "validate_every": 2}, "135,168 bytes .64 windows"),
    ],
    ids=str,
)
def test_a_step_that_cannot_be_cached_is_refused_before_any_step(
    fields: dict[str, Any], message: str, tmp_path: Path
) -> None:
    work = bench(tiny_llama(seed=1), tmp_path / "step", teacher=tiny_llama(seed=2))
    with pytest.raises(KronpressError, match=message):
        step(cache_teacher=True, **fields).check(work)
    assert not (tmp_path / "step").exists()
