from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

from kronpress.activations.attention import training_attention
from kronpress.activations.trace import tracing
from kronpress.errors import KronpressError
from kronpress.finetune.examples import Collate
from kronpress.finetune.objective import TaskDistillation
from kronpress.losses import IGNORED, Loss, parse_losses, readings_of
from kronpress.tasks import TASKS, Feature, outputs_of, with_head
from kronpress.teacher import task_live
from kronpress.teacher.task_outputs import StoredTask, build_task
from tests.tiny import tiny_bert, tiny_gpt2, tiny_llama, tiny_tokenizer

pytestmark = pytest.mark.usefixtures("in_float32")

BUILDS: dict[str, Any] = {"bert": tiny_bert, "gpt2": tiny_gpt2, "llama": tiny_llama}
MODELS = pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)
READ: frozenset[Any] = frozenset({"embedding", "blocks"})
LABELS = {"mrpc": [(1.0,), (0.0,), (1.0,)], "sts-b": [(2.5,), (0.0,), (5.0,)], "squad": [(2, 4), (0, 0), (1, 1)]}


def features(task: str) -> list[Feature]:
    return [
        Feature(tuple(range(3, 3 + length)), None, tuple(labels), index)
        for index, (length, labels) in enumerate(zip((9, 4, 6), LABELS[task], strict=True))
    ]


def batch(task: str, teacher: StoredTask | None = None) -> dict[str, torch.Tensor]:
    said = [{} if teacher is None else teacher.said(row) for row in range(3)]
    return Collate(pad=0, teacher=teacher)(list(zip(features(task), said, strict=True)))


def taught(student: PreTrainedModel, teacher: PreTrainedModel, losses: Mapping[str, Loss]) -> TaskDistillation:
    """What a student is trained on that learns from a model."""
    return TaskDistillation(student, task_live(teacher, readings=readings_of(losses)), losses)


def headed(build: Any, task: str, *, seed: int) -> PreTrainedModel:
    return with_head(build(seed=seed), TASKS[task], tiny_tokenizer(), seed=seed)


@MODELS
@pytest.mark.parametrize("task", ["mrpc", "sts-b"])
def test_labels_alone_give_what_transformers_gives(build: Any, task: str) -> None:
    student = headed(build, task, seed=0)
    inputs = batch(task)
    labels = inputs["labels"][:, 0]
    expected = student(**{**inputs, "labels": labels if task == "sts-b" else labels.long()}).loss
    found = TaskDistillation(student, None, parse_losses("cross_entropy"))(**inputs)["loss"]
    torch.testing.assert_close(found, expected)


@MODELS
@pytest.mark.parametrize("task", ["mrpc", "sts-b"])
def test_what_has_no_label_is_compared_with_the_teacher_alone(build: Any, task: str) -> None:
    student, teacher = (headed(build, task, seed=seed) for seed in (0, 1))
    inputs, known = batch(task), {name: value[:2] for name, value in batch(task).items()}
    inputs["labels"][2] = float(IGNORED)
    of_labels = [
        TaskDistillation(student, None, parse_losses("cross_entropy"))(**each)["loss"] for each in (inputs, known)
    ]
    torch.testing.assert_close(*of_labels)
    compared = taught(student, teacher, parse_losses("logits"))
    torch.testing.assert_close(compared(**inputs)["loss"], compared(**batch(task))["loss"])


def test_spans_give_what_transformers_gives() -> None:
    student, inputs = headed(tiny_bert, "squad", seed=0), batch("squad")
    labels = inputs.pop("labels").long()
    logits = outputs_of(student, inputs).masked_fill(inputs["attention_mask"][:, None] == 0, -torch.inf)
    expected = (F.cross_entropy(logits[:, 0], labels[:, 0]) + F.cross_entropy(logits[:, 1], labels[:, 1])) / 2
    found = TaskDistillation(student, None, parse_losses("cross_entropy"))(labels=labels.float(), **inputs)["loss"]
    torch.testing.assert_close(found, expected)


@MODELS
@pytest.mark.parametrize("task", ["mrpc", "sts-b", "squad"])
@pytest.mark.parametrize("losses", [{"logits": {"temperature": 2.0}}, {"hidden": {"layers": "last"}, "logits": 2}])
def test_a_student_that_equals_its_teacher_loses_nothing(build: Any, task: str, losses: Any) -> None:
    student, teacher = (headed(build, task, seed=0) for _ in range(2))
    objective = taught(student, teacher, parse_losses(losses))
    assert abs(objective(**batch(task))["loss"].item()) < 1e-6
    other = taught(headed(build, task, seed=1), teacher, parse_losses(losses))
    assert other(**batch(task))["loss"].item() > 1e-4


@pytest.mark.parametrize("task", ["mrpc", "sts-b", "squad"])
def test_stored_outputs_stand_for_the_teacher(task: str, tmp_path: Path) -> None:
    student, teacher = headed(tiny_bert, task, seed=0), headed(tiny_bert, task, seed=1)
    losses = parse_losses({"logits": 0.7, "cross_entropy": 0.3})
    stored = build_task(tmp_path, teacher, features(task))
    results = []
    for objective, inputs in (
        (taught(student, teacher, losses), batch(task)),
        (TaskDistillation(student, stored, losses), batch(task, stored)),
    ):
        student.zero_grad()
        loss = objective(**inputs)["loss"]
        loss.backward()
        gradient = student.get_submodule(student.base_model_prefix).encoder.layer[0].output.dense.weight.grad
        results.append((loss.item(), gradient.clone(), objective.take_parts()))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-6)
    torch.testing.assert_close(results[0][1], results[1][1])
    assert set(results[0][2]) == {"logits", "cross_entropy"} and results[0][2] == pytest.approx(results[1][2])


def test_stored_activations_stand_for_the_teacher(tmp_path: Path) -> None:
    student, teacher = headed(tiny_bert, "mrpc", seed=0), headed(tiny_bert, "mrpc", seed=1)
    losses = parse_losses({"logits": 1, "embedding": 1, "hidden": 1, "rail": 1})
    live, stored = taught(student, teacher, losses), build_task(tmp_path, teacher, features("mrpc"), readings=READ)
    objective, inputs = TaskDistillation(student, stored, losses), batch("mrpc", stored)
    torch.testing.assert_close(objective(**inputs)["loss"], live(**batch("mrpc"))["loss"], rtol=0.02, atol=0)
    with torch.no_grad(), tracing(teacher, READ) as trace:
        outputs_of(teacher, {name: batch("mrpc")[name] for name in ("input_ids", "attention_mask")})
    inputs["teacher_activations"] = trace.taken()  # as they are, not rounded to bfloat16
    torch.testing.assert_close(objective(**inputs)["loss"], live(**batch("mrpc"))["loss"])
    inputs["teacher_activations"] = inputs["teacher_activations"] + 1
    assert objective(**inputs)["loss"] > live(**batch("mrpc"))["loss"]


def test_what_a_stored_teacher_does_not_give_is_missed_before_training(tmp_path: Path) -> None:
    student, teacher = headed(tiny_bert, "mrpc", seed=0), headed(tiny_bert, "mrpc", seed=1)
    stored = build_task(tmp_path, teacher, features("mrpc"), readings={"blocks"})
    TaskDistillation(student, stored, parse_losses({"logits": 1, "hidden": 1}))
    with pytest.raises(KronpressError, match="the loss 'embedding' reads embedding, which the teacher does not give"):
        TaskDistillation(student, stored, parse_losses({"embedding": 1}))


def test_attention_is_seen_without_padding() -> None:
    student, teacher = headed(tiny_bert, "mrpc", seed=0), headed(tiny_bert, "mrpc", seed=1)
    losses = parse_losses({"attention": {"of": "probabilities"}, "embedding": 1, "minilm": 1})
    with training_attention(student, teacher):
        loss = taught(student, teacher, losses)(**batch("mrpc"))["loss"]
        longer = batch("mrpc")
        for name in ("input_ids", "attention_mask"):
            longer[name] = F.pad(longer[name], (0, 5))
        again = taught(student, teacher, losses)(**longer)["loss"]
    torch.testing.assert_close(loss, again, rtol=1e-4, atol=1e-5)
