from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModel, LlamaModel, PreTrainedModel

from kronpress.activations.attention import training_attention
from kronpress.activations.head import head_of
from kronpress.activations.trace import Sizes, tracing
from kronpress.distill import Distill
from kronpress.errors import KronpressError
from kronpress.losses import IGNORED, Loss, parse_losses, readings_of
from kronpress.run.recipe import read_recipe
from kronpress.teacher import text_live
from kronpress.train import Distillation, objective
from tests.tiny import DEPTH, DIM, VOCABULARY, factorized, some_ids, tiny_bert, tiny_gpt2, tiny_llama, with_more_rows

pytestmark = pytest.mark.usefixtures("in_float32")

BUILDS: dict[str, Any] = {
    "llama": tiny_llama,
    "llama untied": partial(tiny_llama, tied=False),
    "gpt2": tiny_gpt2,
    "bert": tiny_bert,
}


def taught(student: PreTrainedModel, teacher: PreTrainedModel | None, losses: Mapping[str, Loss]) -> Distillation:
    """What a student is trained on that learns from a model."""
    live = None if teacher is None else text_live(teacher, readings=readings_of(losses))
    return Distillation(student, live, losses)


def batch(*, padded: bool = True) -> dict[str, torch.Tensor]:
    """Two texts, in which some words are to be predicted; the first is shorter."""
    ids, mask = some_ids(), torch.ones(2, 12, dtype=torch.long)
    labels = ids.roll(-1, dims=1)
    labels[1, ::3] = IGNORED
    if padded:
        mask[0, -5:], labels[0, -5:] = 0, IGNORED
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def plain(
    student: PreTrainedModel, teacher: PreTrainedModel, inputs: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cross-entropy, KL of all tokens at temperature 2, and KL of those with a label, from all logits."""
    reads = {key: inputs[key] for key in ("input_ids", "attention_mask")}
    ours, theirs = student(**reads).logits, teacher(**reads).logits.detach()
    p, q = F.log_softmax(theirs / 2, -1), F.log_softmax(ours / 2, -1)
    each = 4 * F.kl_div(q, p, log_target=True, reduction="none").sum(-1)
    surprise = F.cross_entropy(ours.flatten(0, 1), inputs["labels"].flatten(), ignore_index=IGNORED)
    return surprise, each[inputs["attention_mask"].bool()].mean(), each[inputs["labels"] != IGNORED].mean()


def assert_same_gradients(first: torch.Tensor, second: torch.Tensor, student: PreTrainedModel) -> None:
    parameters = list(student.parameters())
    ours, theirs = (torch.autograd.grad(each, parameters, allow_unused=True) for each in (first, second))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("part_elements", [1, 700, 2**20])
@pytest.mark.parametrize("name", BUILDS)
def test_it_is_what_all_logits_give(name: str, part_elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objective, "PART_ELEMENTS", part_elements)
    teacher = BUILDS[name]()
    student = factorized(teacher, Path("unused"))
    losses = parse_losses({"cross_entropy": 0.5, "soft": {"name": "logits", "temperature": 2, "weight": 3}})
    distillation, inputs = taught(student, teacher, losses), batch()
    value = distillation(**inputs)["loss"]
    surprise, everywhere, _ = plain(student, teacher, inputs)
    torch.testing.assert_close(value, 0.5 * surprise + 3 * everywhere)
    assert_same_gradients(value, 0.5 * surprise + 3 * everywhere, student)
    parts = distillation.take_parts()
    assert parts == pytest.approx({"cross_entropy": surprise.item(), "soft": everywhere.item()}, rel=1e-5)


@pytest.mark.parametrize("name", BUILDS)
def test_where_only_labels_count_only_those_go_through_the_head(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = BUILDS[name]()
    student = factorized(teacher, Path("unused"))
    rows: list[int] = []
    through_head = objective.through_head

    def noted(hidden: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        rows.append(len(hidden))
        return through_head(hidden, *arguments, **options)

    monkeypatch.setattr(objective, "through_head", noted)
    losses = parse_losses({"cross_entropy": 2, "logits": {"at": "labels", "temperature": 2}})
    inputs = batch()
    value = taught(student, teacher, losses)(**inputs)["loss"]
    assert rows == [int((inputs["labels"] != IGNORED).sum())]
    surprise, _, labeled = plain(student, teacher, inputs)
    torch.testing.assert_close(value, 2 * surprise + labeled)
    assert_same_gradients(value, 2 * surprise + labeled, student)


ALL_LOGITS = parse_losses(
    {
        "logits": {"temperature": 2},
        "reverse": {"name": "logits", "divergence": "reverse"},
        "between": {"name": "logits", "divergence": "jensen_shannon", "at": "labels"},
        "top": {"name": "logits", "top_k": 5},
        "cross_entropy": 0.5,
        "hidden": 1,
    }
)


@pytest.mark.parametrize("name", BUILDS)
def test_rows_that_only_the_teacher_has_change_neither_loss_nor_gradient(name: str) -> None:
    teacher, student = BUILDS[name](), factorized(BUILDS[name](), Path("unused"))
    padded = with_more_rows(teacher, BUILDS[name](seed=9, vocab_size=700))
    plain, more = (taught(student, each, ALL_LOGITS)(**batch())["loss"] for each in (teacher, padded))
    assert torch.equal(plain, more)
    parameters = list(student.parameters())
    gradients = [torch.autograd.grad(each, parameters, allow_unused=True) for each in (plain, more)]
    for ours, theirs in zip(*gradients, strict=True):
        assert ours is theirs is None or torch.equal(ours, theirs)


@pytest.mark.parametrize("name", BUILDS)
def test_rows_that_only_the_student_has_count_where_nothing_is_compared(name: str) -> None:
    teacher, short = BUILDS[name](), BUILDS[name](seed=3)
    long = with_more_rows(short, BUILDS[name](seed=9, vocab_size=700))
    compared = {label: loss for label, loss in ALL_LOGITS.items() if label != "cross_entropy"}
    values = [taught(student, teacher, compared)(**batch())["loss"] for student in (short, long)]
    torch.testing.assert_close(*values)
    for value in values:
        value.backward()
    for ours, theirs in zip(short.parameters(), long.parameters(), strict=True):
        if ours.grad is not None:
            torch.testing.assert_close(ours.grad, theirs.grad[: len(ours)], atol=1e-5, rtol=1e-3)
            assert not theirs.grad[len(ours) :].any()
    surprise = taught(long, teacher, parse_losses({"logits": 0, "cross_entropy": 1}))(**batch())["loss"]
    torch.testing.assert_close(surprise, plain(long, long, batch())[0])


def test_parts_are_means_over_the_batches_since_they_were_taken() -> None:
    teacher, student = tiny_llama(), tiny_llama(seed=1)
    distillation = taught(student, teacher, parse_losses({"hidden": 0.1, "logits": 1, "cross_entropy": 0}))
    assert distillation.take_parts() == {"hidden": 0, "logits": 0, "cross_entropy": 0}
    values, parts = [], []
    for inputs in (batch(), batch(padded=False)):
        values.append(distillation(**inputs)["loss"].item())
        parts.append(distillation.take_parts())
    assert [0.1 * part["hidden"] + part["logits"] for part in parts] == pytest.approx(values)
    for inputs in (batch(), batch(padded=False)):
        distillation(**inputs)
    means = {name: (parts[0][name] + parts[1][name]) / 2 for name in parts[0]}
    assert distillation.take_parts() == pytest.approx(means)
    assert list(means) == ["hidden", "logits", "cross_entropy"]


def test_a_weight_of_two_is_the_loss_twice() -> None:
    teacher, student = tiny_llama(), tiny_llama(seed=1)
    once, twice = (
        taught(student, teacher, parse_losses({"hidden": weight, "logits": weight}))(**batch())["loss"]
        for weight in (1, 2)
    )
    torch.testing.assert_close(2 * once, twice)


@pytest.mark.parametrize("depth", [3, 12])
@pytest.mark.parametrize(("recipe", "build"), [("kngpt2", tiny_gpt2), ("kroneckerbert-21", tiny_bert)])
def test_shipped_recipes_add_up_layers_whatever_their_number(recipe: str, build: Any, depth: int) -> None:
    name = "n_layer" if build is tiny_gpt2 else "num_hidden_layers"
    teacher, student = (build(seed=seed, **{name: depth}) for seed in (0, 1))
    (losses,) = (step.losses for step in read_recipe(recipe).steps if isinstance(step, Distill))
    weighted = {
        label: loss.model_copy(update={"reduction": "mean", "weight": float(depth)})
        if label in ("attention", "hidden")
        else loss
        for label, loss in losses.items()
    }
    with training_attention(student, teacher):
        added, averaged = (taught(student, teacher, each)(**batch())["loss"] for each in (losses, weighted))
    torch.testing.assert_close(added, averaged, rtol=1e-6, atol=0)
    assert_same_gradients(added, averaged, student)


def test_without_a_mask_all_tokens_count() -> None:
    teacher, student = tiny_llama(), tiny_llama(seed=1)
    distillation = taught(student, teacher, parse_losses({"logits": 1, "hidden": 1}))
    inputs = batch(padded=False)
    torch.testing.assert_close(
        distillation(**inputs)["loss"], distillation(inputs["input_ids"], inputs["labels"])["loss"]
    )


LAYERED = parse_losses(
    {name: {"layers": "same"} for name in ("hidden", "attention", "pkd", "minilm", "directions")}
    | {"embedding": 1, "rail": 1, "contrastive": 1}
)


@pytest.mark.parametrize("name", BUILDS)
def test_models_without_a_head_learn_by_their_layers(name: str) -> None:
    whole = BUILDS[name]()
    with torch.random.fork_rng(devices=[]):
        teacher: PreTrainedModel = AutoModel.from_config(whole.config).eval()
    student = copy.deepcopy(teacher)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    assert head_of(student) is None
    with training_attention(student, teacher):
        distillation = taught(student, teacher, LAYERED)
        value = distillation(**batch())["loss"]
    value.backward()
    assert value.dtype == torch.float32
    parts = distillation.take_parts().values()
    assert sum(parts) == pytest.approx(value.item(), rel=1e-5)
    assert min(parts) > 0


def test_losses_of_layers_leave_the_head_out_of_a_model_that_has_one() -> None:
    teacher, student = tiny_llama(tied=False), tiny_llama(tied=False, seed=1)
    taught(student, teacher, parse_losses({"hidden": 1}))(**batch())["loss"].backward()
    assert student.lm_head.weight.grad is None
    assert student.model.embed_tokens.weight.grad.any()


def test_a_shallower_and_narrower_student_learns_through_maps() -> None:
    teacher = tiny_llama()
    student = tiny_llama(num_hidden_layers=2, hidden_size=8, num_attention_heads=2, num_key_value_heads=1)
    fields = {"layers": "uniform", "project": True}
    losses = {
        "embedding": {"project": True}, "hidden": fields, "pkd": fields, "rail": {"project": True},
        "contrastive": {"project": True}, "minilm": {"relation_heads": 2}, "logits": {},
    }  # fmt: skip
    with training_attention(student, teacher):
        distillation = taught(student, teacher, parse_losses(losses))
        value = distillation(**batch())["loss"]
        value.backward()
    counts = {name: len(list(maps.parameters())) for name, maps in distillation.projections.items()}
    assert counts == {"of_embedding": 1, "of_hidden": 2, "of_pkd": 2, "of_rail": 2, "of_contrastive": 1}
    assert {tuple(each.shape) for each in distillation.projections.parameters()} == {(DIM, 8)}
    assert all(each.grad is not None and each.grad.any() for each in distillation.parameters())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    optimizer = torch.optim.SGD(distillation.parameters(), lr=1e-3)
    optimizer.step()
    with training_attention(student, teacher):
        torch.manual_seed(0)
        assert distillation(**batch())["loss"] < value


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ({"hidden": {"layers": "uniform"}}, "vectors of 8 numbers in the student with 16 in the teacher; set project"),
        ({"pkd": {"project": True}}, "layers of the loss 'pkd' is 'same', but the student has 2 blocks"),
        ({"attention": {"layers": "last"}}, "the student has 2 and the teacher 4; use the loss minilm"),
        ({"minilm": {"relation_heads": 3}}, "relation_heads of the loss 'minilm' is 3, .* choose a divisor of 8"),
    ],
    ids=str,
)
def test_models_that_do_not_fit_are_refused_before_training(losses: dict[str, Any], message: str) -> None:
    student = tiny_llama(num_hidden_layers=2, hidden_size=8, num_attention_heads=2, num_key_value_heads=1)
    with pytest.raises(KronpressError, match=message):
        taught(student, tiny_llama(), parse_losses(losses))


def test_the_teacher_is_neither_trained_nor_saved() -> None:
    teacher, student = tiny_llama(), tiny_llama(seed=1)
    distillation = taught(student, teacher, parse_losses({"logits": 1, "hidden": {"project": True}}))
    teachers = {id(parameter) for parameter in teacher.parameters()}
    assert not teachers & {id(parameter) for parameter in distillation.parameters()}
    assert {name.split(".")[0] for name in distillation.state_dict()} == {"student", "projections"}
    assert distillation.models == (student, teacher)
    before = copy.deepcopy(teacher.state_dict())
    distillation.train()
    assert not teacher.training
    distillation(**batch())["loss"].backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


def test_a_teacher_is_not_needed_where_nothing_compares() -> None:
    student = tiny_llama()
    value = taught(student, None, parse_losses("cross_entropy"))(**batch())["loss"]
    torch.testing.assert_close(value, plain(student, student, batch())[0])


@pytest.mark.parametrize("name", BUILDS)
def test_the_trace_is_what_the_model_tells_of_itself(name: str) -> None:
    model = BUILDS[name]()
    with torch.no_grad(), tracing(model, {"embedding", "blocks", "feed_forwards"}) as trace:
        states = model(input_ids=some_ids(), output_hidden_states=True).hidden_states
    assert trace.embedding is not None
    torch.testing.assert_close([trace.embedding, *trace.blocks[:-1]], list(states[:-1]))
    assert len(trace.blocks) == len(trace.feed_forwards) == DEPTH
    assert {each.shape for each in trace.feed_forwards} == {states[0].shape}
    assert not trace.attentions


def test_sizes_are_those_of_the_configuration() -> None:
    assert Sizes.of(tiny_gpt2()) == Sizes(depth=DEPTH, dim=DIM, heads=4, head=DIM // 4, vocabulary=VOCABULARY)
    assert Sizes.of(tiny_bert()) == Sizes(depth=DEPTH, dim=DIM, heads=4, head=DIM // 4, vocabulary=VOCABULARY)
    assert Sizes.of(tiny_llama(head_dim=8)) == Sizes(depth=DEPTH, dim=DIM, heads=4, head=8, vocabulary=VOCABULARY)


def test_a_model_that_is_all_base_has_no_head() -> None:
    assert head_of(LlamaModel(tiny_llama().config)) is None
    assert head_of(tiny_llama()) is not None
