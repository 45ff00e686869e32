from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

from kronpress.activations.attention import training_attention
from kronpress.activations.trace import tracing
from kronpress.finetune import objective as task_distillation
from kronpress.finetune.examples import Collate
from kronpress.finetune.objective import TaskDistillation
from kronpress.losses import IGNORED, parse_losses
from kronpress.tasks import TASKS, Feature, outputs_of, with_head
from kronpress.teacher.example_store import Lesson
from tests.tiny import tiny_bert, tiny_gpt2, tiny_llama, tiny_tokenizer

BUILDS: dict[str, Any] = {"bert": tiny_bert, "gpt2": tiny_gpt2, "llama": tiny_llama}
MODELS = pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)
LABELS = {"mrpc": [(1.0,), (0.0,), (1.0,)], "sts-b": [(2.5,), (0.0,), (5.0,)], "squad": [(2, 4), (0, 0), (1, 1)]}


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_distillation, "mixed_precision", lambda _: nullcontext())


def batch(task: str) -> dict[str, torch.Tensor]:
    features = [
        Feature(tuple(range(3, 3 + length)), None, tuple(labels), index)
        for index, (length, labels) in enumerate(zip((9, 4, 6), LABELS[task], strict=True))
    ]
    return Collate(pad=0)([(feature, None) for feature in features])


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
    compared = TaskDistillation(student, teacher, parse_losses("logits"))
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
    objective = TaskDistillation(student, teacher, parse_losses(losses))
    assert abs(objective(**batch(task))["loss"].item()) < 1e-6
    other = TaskDistillation(headed(build, task, seed=1), teacher, parse_losses(losses))
    assert other(**batch(task))["loss"].item() > 1e-4


@pytest.mark.parametrize("task", ["mrpc", "sts-b", "squad"])
def test_outputs_taken_beforehand_stand_for_the_teacher(task: str) -> None:
    student, teacher = headed(tiny_bert, task, seed=0), headed(tiny_bert, task, seed=1)
    losses, inputs = parse_losses({"logits": 0.7, "cross_entropy": 0.3}), batch(task)
    with torch.no_grad():
        outputs = outputs_of(teacher, {name: value for name, value in inputs.items() if name != "labels"})
    found = []
    for objective, more in (
        (TaskDistillation(student, teacher, losses), {}),
        (TaskDistillation(student, None, losses), {"teacher_outputs": outputs}),
    ):
        student.zero_grad()
        loss = objective(**inputs, **more)["loss"]
        loss.backward()
        gradient = student.get_submodule(student.base_model_prefix).encoder.layer[0].output.dense.weight.grad
        found.append((loss.item(), gradient.clone(), objective.take_parts()))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    torch.testing.assert_close(found[0][1], found[1][1])
    assert set(found[0][2]) == {"logits", "cross_entropy"} and found[0][2] == pytest.approx(found[1][2])


def test_states_taken_beforehand_stand_for_the_teacher() -> None:
    student, teacher = headed(tiny_bert, "mrpc", seed=0), headed(tiny_bert, "mrpc", seed=1)
    objective = TaskDistillation(student, teacher, parse_losses({"logits": 1, "embedding": 1, "hidden": 1, "rail": 1}))
    inputs = batch("mrpc")
    with torch.no_grad(), tracing(teacher, objective.readings) as trace:
        outputs = outputs_of(teacher, {name: value for name, value in inputs.items() if name != "labels"})
    known = {"teacher_outputs": outputs, "teacher_states": trace.taken()}
    torch.testing.assert_close(objective(**inputs, **known)["loss"], objective(**inputs)["loss"])
    known["teacher_states"] = known["teacher_states"] + 1
    assert objective(**inputs, **known)["loss"] > objective(**inputs)["loss"]


def test_attention_is_seen_without_padding() -> None:
    student, teacher = headed(tiny_bert, "mrpc", seed=0), headed(tiny_bert, "mrpc", seed=1)
    losses = parse_losses({"attention": {"of": "probabilities"}, "embedding": 1, "minilm": 1})
    with training_attention(student, teacher):
        loss = TaskDistillation(student, teacher, losses)(**batch("mrpc"))["loss"]
        longer = batch("mrpc")
        for name in ("input_ids", "attention_mask"):
            longer[name] = F.pad(longer[name], (0, 5))
        again = TaskDistillation(student, teacher, losses)(**longer)["loss"]
    torch.testing.assert_close(loss, again, rtol=1e-4, atol=1e-5)


def test_teacher_outputs_of_spans_are_padded() -> None:
    features = [Feature((3,) * length, None, (0.0, 0.0), 0) for length in (3, 2)]
    outputs = [np.ones((2, 3), dtype=np.float32), np.ones((2, 2), dtype=np.float32)]
    known = [Lesson(each, torch.ones(len(feature.ids), 1, 2)) for feature, each in zip(features, outputs, strict=True)]
    together = Collate(pad=0)(list(zip(features, known, strict=True)))
    found = together["teacher_outputs"]
    assert together["teacher_states"].sum(dim=(2, 3)).tolist() == [[2.0, 2.0, 2.0], [2.0, 2.0, 0.0]]
    assert found.shape == (2, 2, 3) and found[1, :, 2].tolist() == [0.0, 0.0]
