from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from kronpress.distill import Distill, DistillationTrainer, read_log, trainer
from kronpress.distill.step import epochs_of
from kronpress.distill.trainer import COMPLETE, last_complete
from kronpress.errors import KronpressError
from kronpress.factorize import Factorize
from kronpress.step import Workbench
from kronpress.validation import parse
from tests.tiny import bench, tiny_gpt2, tiny_llama

STEPS, SAVED = 8, 3
Build = Callable[[], PreTrainedModel]
MODELS = pytest.mark.parametrize(
    "build", [tiny_llama, lambda: tiny_gpt2(resid_pdrop=0.1, embd_pdrop=0.1)], ids=["llama", "gpt2 with dropout"]
)


class Killed(BaseException):
    """What stands for the end of the process."""


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "mixed_precision", lambda _: nullcontext())


def step(**fields: Any) -> Distill:
    fixed = {"tokens": STEPS * 4 * 32, "window": 32, "batch": 4, "learning_rate": 5e-3, "save_every": SAVED}
    return Distill(**(fixed | fields))


def factored(build: Build, folder: Path) -> Workbench:
    work = bench(build(), folder)
    Factorize(init="van_loan", sites="all,embedding", right=(2, 2), terms=2).run(work)
    torch.manual_seed(0)
    return work


def kill_at(call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the process end in the forward pass of one optimizer step."""
    calls, compute = iter(range(1, 1000)), DistillationTrainer.compute_loss

    def compute_or_die(self: DistillationTrainer, *arguments: Any, **options: Any) -> Any:
        if next(calls) == call:
            raise Killed
        return compute(self, *arguments, **options)

    monkeypatch.setattr(DistillationTrainer, "compute_loss", compute_or_die)


def assert_same_weights(first: PreTrainedModel, second: PreTrainedModel) -> None:
    for name, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name


@MODELS
def test_training_lowers_the_loss_and_leaves_the_teacher(build: Build, tmp_path: Path) -> None:
    work = factored(build, tmp_path)
    before = {name: value.clone() for name, value in work.teacher.state_dict().items()}
    report = step(tokens=24 * 4 * 32).run(work)
    losses = [point["loss"] for point in report["curve"]]
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    assert all(torch.equal(before[name], value) for name, value in work.teacher.state_dict().items())
    assert not work.student.training
    assert work.student.get_output_embeddings().table is work.student.get_input_embeddings()


def test_the_report_tells_tokens_steps_and_the_curve(tmp_path: Path) -> None:
    work = factored(tiny_llama, tmp_path)
    report = step(tokens=STEPS * 4 * 32 - 5).run(work)
    assert (report["tokens"], report["steps"]) == (STEPS * 4 * 32, STEPS)
    assert [point["tokens"] for point in report["curve"]] == [128 * n for n in (2, 4, 6, 8)]
    lines = read_log(tmp_path / "train.jsonl")
    assert [line["step"] for line in lines] == [2, 4, 6, 8]
    assert all(line["grad_norm"] > 0 and line["tokens_per_second"] > 0 for line in lines)
    assert not (tmp_path / "trainer").exists()


@MODELS
@pytest.mark.parametrize("call", [2, 4, 8])
def test_going_on_after_a_kill_ends_where_no_kill_would(
    build: Build, call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = factored(build, tmp_path / "whole")
    expected = step().run(whole)
    with monkeypatch.context() as patch:
        kill_at(call, patch)
        with pytest.raises(Killed):
            step().run(factored(build, tmp_path / "killed"))
    resumed = factored(build, tmp_path / "killed")
    torch.rand(7)  # another state of the random numbers
    report = step().run(resumed)
    assert_same_weights(whole.student, resumed.student)
    assert [point["tokens"] for point in report["curve"]] == [point["tokens"] for point in expected["curve"]]
    assert report["curve"][-1] == expected["curve"][-1]


def test_a_checkpoint_cut_short_is_never_resumed_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = factored(tiny_llama, tmp_path / "whole")
    step().run(whole)
    with monkeypatch.context() as patch:
        kill_at(8, patch)
        with pytest.raises(Killed):
            step().run(factored(tiny_llama, tmp_path / "killed"))
    folder = tmp_path / "killed" / "trainer"
    latest = folder / f"checkpoint-{2 * SAVED}"
    assert last_complete(folder) == latest
    (latest / COMPLETE).unlink()
    (latest / "model.safetensors").write_bytes(b"half")
    assert last_complete(folder) == folder / f"checkpoint-{SAVED}"
    resumed = factored(tiny_llama, tmp_path / "killed")
    step().run(resumed)
    assert_same_weights(whole.student, resumed.student)


def test_there_is_nothing_to_resume_from_in_an_empty_folder(tmp_path: Path) -> None:
    assert last_complete(tmp_path) is None


def test_a_log_cut_short_is_read_up_to_there(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert read_log(tmp_path / "train.jsonl") == [{"step": 1}, {"step": 2}]
    assert read_log(tmp_path / "none.jsonl") == []


def test_a_dense_student_learns_too(tmp_path: Path) -> None:
    work = bench(tiny_llama(seed=1), tmp_path, teacher=tiny_llama(seed=2))
    report = step(tokens=20 * 4 * 32, loss={"name": "logits", "cross_entropy": 0.1, "temperature": 2}).run(work)
    assert report["curve"][-1]["loss"] < report["curve"][0]["loss"]


@pytest.mark.parametrize(("windows", "count"), [(5, 3), (5, 5), (5, 17), (1, 4)])
def test_every_epoch_reads_every_window_once_in_another_order(windows: int, count: int) -> None:
    order = epochs_of(windows, count=count, seed=3)
    assert len(order) == count
    for start in range(0, count, windows):
        epoch = order[start : start + windows].tolist()
        assert len(set(epoch)) == len(epoch)
        assert set(epoch) <= set(range(windows))
    assert torch.equal(order, epochs_of(windows, count=count, seed=3))


def test_models_of_different_vocabularies_are_refused(tmp_path: Path) -> None:
    work = bench(tiny_llama(), tmp_path, teacher=tiny_llama(vocab_size=300))
    with pytest.raises(KronpressError, match="the student has 264 words and the teacher 300"):
        step().run(work)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "the key 'tokens' is missing"),
        ({"tokens": 0}, "tokens is 0"),
        ({"tokens": 9, "lr": 1}, "unknown key 'lr'"),
        ({"tokens": 9, "loss": "logit"}, "unknown loss 'logit': did you mean 'logits'"),
        ({"tokens": 9, "loss": {"temprature": 2}}, "loss logits: unknown key 'temprature': did you mean 'temperature'"),
        ({"tokens": 9, "loss": {"temperature": 0}}, "temperature is 0"),
        ({"tokens": 9, "loss": 3}, "loss is 3; give a name or a mapping with one: logits"),
        ({"tokens": 9, "schedule": "cosin"}, "schedule is 'cosin'"),
    ],
    ids=str,
)
def test_a_mistake_is_refused_with_the_remedy(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(KronpressError, match=message):
        parse(Distill, fields, place="steps.0 (distill)")
