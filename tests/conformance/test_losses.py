"""What every distillation loss on the shelf must satisfy."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from kronpress.activations.attention import training_attention
from kronpress.losses import IGNORED, LOSSES, LayerLoss, LogitLoss, Loss, Predictions, readings_of
from kronpress.teacher import text_live
from kronpress.train import Distillation
from kronpress.train import language_objective as distillation
from tests.losses.traces import SIZES, all_seen, in_single_precision, leaves, some_trace
from tests.tiny import DEPTH, factorized, some_ids, tiny_bert, tiny_gpt2, tiny_llama

EXAMPLES: dict[str, list[dict[str, Any]]] = {  # more than the defaults
    "cross_entropy": [{}, {"smoothing": 0.2}],
    "logits": [
        {},
        {"temperature": 2.0},
        {"divergence": "reverse"},
        {"divergence": "jensen_shannon", "temperature": 0.5},
        {"top_k": 8},
        {"top_k": 8, "divergence": "reverse", "temperature": 2.0},
        {"at": "labels"},
    ],
    "embedding": [{}, {"metric": "cosine"}, {"project": True}],
    "hidden": [
        {},
        {"of": "feed_forwards"},
        {"metric": "cosine", "layers": "last"},
        {"metric": "relative", "layers": "uniform"},
        {"reduction": "sum"},
        {"project": True},
    ],
    "attention": [{}, {"of": "scores"}, {"reduction": "sum"}],
    "pkd": [{}, {"layers": [0, 1, 2], "project": True}, {"layers": [[2, 2]]}, {"reduction": "sum"}],
    "minilm": [{}, {"relation_heads": 2}, {"layers": "same"}, {"layers": "same", "reduction": "sum"}],
    "rail": [{}, {"mode": "concatenated"}, {"project": True}, {"reduction": "sum"}],
    "directions": [{}, {"reduction": "sum"}],
    "contrastive": [{}, {"temperature": 0.5}],
    "contrastive_bank": [{}, {"keeps": "teacher", "momentum": 0.9}, {"project": True}],
}
ALL = [loss(**fields) for name, loss in LOSSES.items() for fields in EXAMPLES.get(name, [{}])]
LAYERED = [loss for loss in ALL if isinstance(loss, LayerLoss)]
OF_LOGITS = [loss for loss in ALL if isinstance(loss, LogitLoss)]
VANISHING = [loss for loss in ALL if loss.compares and loss.vanishes]

BUILDS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: tiny_llama(tied=False),
    "gpt2": tiny_gpt2,
    "bert": tiny_bert,
}
FAMILIES = pytest.mark.parametrize("family", BUILDS)
PADDED = 4  # tokens at the end of the first text

LAST = rf"\.(layers|h|layer)\.{DEPTH - 1}\."
AFTER_ATTENTION = LAST + r"(self_attn\.o_proj|attn\.c_proj|attention\.output|mlp|intermediate|output)|lm_head"
UNREACHED = {  # the factors that have no part in what a loss looks at
    "embedding": r"\.(layers|h|layer)\.|lm_head",
    "attention": f"{AFTER_ATTENTION}|{LAST}.*(v_proj|value|c_attn\\.parts\\.2)",
    "minilm": AFTER_ATTENTION,
    "directions": AFTER_ATTENTION,
    **dict.fromkeys(["hidden", "pkd", "rail", "contrastive", "contrastive_bank"], "lm_head"),
}


@cache
def teacher_of(family: str) -> PreTrainedModel:
    return BUILDS[family]()


@cache
def student_of(family: str) -> PreTrainedModel:
    return factorized(teacher_of(family), Path(gettempdir()))


def minimized(loss: Loss, student: PreTrainedModel, teacher: PreTrainedModel, **inputs: torch.Tensor) -> torch.Tensor:
    """The loss of a batch as training has it."""
    ids = some_ids()
    batch = {"input_ids": ids, "labels": ids.roll(-1, dims=1)} | inputs
    torch.manual_seed(0)
    with training_attention(student, teacher):
        live = text_live(teacher, readings=readings_of({"loss": loss}))
        return Distillation(student, live, {"loss": loss})(**batch)["loss"]


def gradients(value: torch.Tensor, student: PreTrainedModel) -> dict[str, torch.Tensor]:
    names, parameters = zip(*student.named_parameters(), strict=True)
    found = torch.autograd.grad(value, parameters, allow_unused=True, materialize_grads=True)
    return dict(zip(names, found, strict=True))


def test_the_examples_are_of_losses_that_there_are() -> None:
    assert set(EXAMPLES) <= set(LOSSES)


@pytest.mark.parametrize("loss", ALL, ids=repr)
def test_it_survives_a_recipe(loss: Loss) -> None:
    assert type(loss).model_validate(loss.model_dump(mode="json")) == loss
    assert LOSSES[loss.kind] is type(loss)


@pytest.mark.usefixtures("in_float32")
@FAMILIES
@pytest.mark.parametrize("loss", VANISHING, ids=repr)
def test_it_vanishes_with_its_gradient_where_the_student_equals_the_teacher(loss: Loss, family: str) -> None:
    student = student_of(family)
    value = minimized(loss, student, copy.deepcopy(student))
    assert abs(value.item()) < 1e-5
    for name, gradient in gradients(value, student).items():
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-4, rtol=0, msg=name)


@pytest.mark.usefixtures("in_float32")
@FAMILIES
@pytest.mark.parametrize("loss", ALL, ids=repr)
def test_it_is_positive_elsewhere_and_reaches_every_factor_before_what_it_looks_at(loss: Loss, family: str) -> None:
    student = student_of(family)
    value = minimized(loss, student, teacher_of(family))
    assert value.item() > 1e-4
    assert value.dtype == torch.float32
    found = {name: bool(each.any()) for name, each in gradients(value, student).items() if is_factor(name)}
    assert len(found) > 3 * DEPTH * 4
    if isinstance(loss, LayerLoss) and getattr(loss, "of", None) != "feed_forwards":
        expected = {name: not re.search(UNREACHED[loss.kind], "." + name) for name in found}
    else:
        expected = {name: isinstance(loss, LogitLoss) or "lm_head" not in name for name in found}
    assert found == expected


def is_factor(name: str) -> bool:
    return name.endswith((".left", ".right", ".scales"))


@pytest.mark.usefixtures("in_float32")
@FAMILIES
@pytest.mark.parametrize("loss", ALL, ids=repr)
def test_what_stands_in_the_padding_does_not_matter(loss: Loss, family: str) -> None:
    values = []
    for word in (3, 200):
        ids, mask = some_ids(), torch.ones(2, 12, dtype=torch.long)
        labels = ids.roll(-1, dims=1)
        ids[0, -PADDED:], labels[0, -PADDED:], mask[0, -PADDED:] = word, IGNORED, 0
        inputs = {"input_ids": ids, "labels": labels, "attention_mask": mask}
        values.append(minimized(loss, student_of(family), teacher_of(family), **inputs))
    torch.testing.assert_close(*values, atol=1e-6, rtol=1e-5)
    alone = minimized(loss, student_of(family), teacher_of(family))
    assert abs(alone.item() - values[0].item()) > 1e-6


@pytest.mark.usefixtures("in_float32")
@pytest.mark.parametrize("loss", ALL, ids=repr)
def test_it_is_finite_where_nothing_is_predicted(loss: Loss) -> None:
    student = student_of("llama")
    value = minimized(loss, student, teacher_of("llama"), labels=torch.full((2, 12), IGNORED))
    assert value.isfinite()
    assert all(each.isfinite().all() for each in gradients(value, student).values())
    if isinstance(loss, LogitLoss) and loss.labeled:
        assert value.item() == 0


@pytest.mark.usefixtures("in_float32")
@FAMILIES
@pytest.mark.parametrize("loss", ALL, ids=repr)
def test_a_small_step_down_the_gradient_lowers_it(loss: Loss, family: str) -> None:
    student = copy.deepcopy(student_of(family))
    value = minimized(loss, student, teacher_of(family))
    slope = gradients(value, student)
    square = sum(each.square().sum() for each in slope.values())
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            parameter -= 0.01 * value / square * slope[name]
    lower = minimized(loss, student, teacher_of(family))
    assert 0.97 * value < lower < 0.995 * value


@pytest.mark.parametrize("loss", ALL, ids=repr)
def test_half_precision_gives_nearly_the_same_in_single_precision(loss: Loss, monkeypatch: pytest.MonkeyPatch) -> None:
    values = []
    for context in (nullcontext(), torch.autocast("cpu", torch.bfloat16)):
        monkeypatch.setattr(distillation, "mixed_precision", lambda _, context=context: context)
        values.append(minimized(loss, student_of("llama"), teacher_of("llama")))
    assert values[1].dtype == torch.float32
    torch.testing.assert_close(*values, rtol=0.1, atol=0.01)


@pytest.mark.parametrize("loss", LAYERED, ids=repr)
def test_what_is_learned_along_begins_the_same_and_takes_no_random_numbers(loss: LayerLoss) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    maps = [loss.projection(SIZES, SIZES) for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), before)
    if maps[0] is not None and maps[1] is not None:
        torch.testing.assert_close(maps[0].state_dict(), maps[1].state_dict())
        assert loss.model_dump()["project"] or not list(maps[0].parameters())


def layered(loss: LayerLoss, *, size: float = 1.0, seen: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
    """The value between two random traces, and its gradients."""
    ours, theirs = some_trace(seed=0, size=size), some_trace(seed=1, size=size)
    seen = all_seen() if seen is None else seen
    value = loss(ours, theirs, seen=seen, projection=loss.projection(SIZES, SIZES))
    return value, *torch.autograd.grad(value, leaves(ours), allow_unused=True, materialize_grads=True)


@pytest.mark.parametrize("size", [0.0, 1e-8, 1e4, 1e8])
@pytest.mark.parametrize("loss", LAYERED, ids=repr)
def test_it_is_finite_for_extreme_activations(loss: LayerLoss, size: float) -> None:
    assert all(each.isfinite().all() for each in layered(loss, size=size))


@pytest.mark.parametrize("loss", LAYERED, ids=repr)
def test_it_is_finite_where_a_text_or_all_are_padding(loss: LayerLoss) -> None:
    seen = all_seen()
    seen[0] = False
    value, *slopes = layered(loss, seen=seen)
    assert value > 0
    assert all(each.isfinite().all() and not each[0].any() for each in slopes)
    value, *slopes = layered(loss, seen=torch.zeros_like(seen))
    assert value == 0
    assert not any(each.any() for each in slopes)


@pytest.mark.parametrize("loss", LAYERED, ids=repr)
def test_half_precision_activations_are_compared_in_single_precision(loss: LayerLoss) -> None:
    ours, theirs = (some_trace(seed=seed, dtype=torch.bfloat16) for seed in (0, 1))
    projection = loss.projection(SIZES, SIZES)
    value = loss(ours, theirs, seen=all_seen(), projection=projection)
    assert value.dtype == torch.float32
    exactly = loss(in_single_precision(ours), in_single_precision(theirs), seen=all_seen(), projection=projection)
    torch.testing.assert_close(value, exactly, atol=1e-6, rtol=1e-5)
    gradients = torch.autograd.grad(value, leaves(ours), allow_unused=True)
    assert {each.dtype for each in gradients if each is not None} == {torch.bfloat16}


def some_predictions(*, seed: int, size: float = 1.0) -> Predictions:
    return Predictions(size * torch.randn(10, 11, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("size", [0.0, 1e4, 1e30])
@pytest.mark.parametrize("loss", OF_LOGITS, ids=repr)
def test_it_is_finite_for_extreme_logits(loss: LogitLoss, size: float) -> None:
    student, teacher = (some_predictions(seed=seed, size=size) for seed in (0, 1))
    value, slope = loss.per_token(student, teacher, torch.arange(10))
    assert value.isfinite().all()
    assert slope.isfinite().all()


@pytest.mark.parametrize("loss", OF_LOGITS, ids=repr)
def test_it_does_not_see_a_shift_of_the_logits(loss: LogitLoss) -> None:
    student, teacher = some_predictions(seed=0), some_predictions(seed=1)
    value, slope = loss.per_token(student, teacher, torch.arange(10))
    moved, _ = loss.per_token(Predictions(student.logits + 3), teacher, torch.arange(10))
    torch.testing.assert_close(value, moved, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(slope.sum(dim=1), torch.zeros(10), atol=1e-5, rtol=0)
