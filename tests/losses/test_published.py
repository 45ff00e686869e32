"""The losses that the documentation gives for published systems are what their papers minimize."""

from __future__ import annotations

import pytest
import torch
import yaml
from torch.nn import functional as F
from transformers import PreTrainedModel

from kronpress.activations.attention import training_attention
from kronpress.errors import KronpressError
from kronpress.finetune.objective import TaskDistillation
from kronpress.losses import Loss, parse_losses, readings_of
from kronpress.tasks import TASKS, outputs_of, with_head
from kronpress.teacher import task_live
from tests.docs.pages import PAGES
from tests.losses.traces import VOCABULARY
from tests.tiny import DEPTH, tiny_bert, tiny_tokenizer

pytestmark = pytest.mark.usefixtures("in_float32")

SYSTEMS = ("BinaryBERT, phase 1", "BinaryBERT, phase 2", "TernaryBERT", "BiT", "BiBERT", "QuantGPT")


def published(system: str) -> dict[str, Loss]:
    (row,) = (line for line in PAGES["docs/losses.md"].splitlines() if line.startswith(f"| {system} |"))
    return parse_losses(yaml.safe_load(row.split("`")[1]))


def models(task: str = "mrpc") -> tuple[PreTrainedModel, PreTrainedModel]:
    student, teacher = (with_head(tiny_bert(seed=seed), TASKS[task], tiny_tokenizer(), seed=seed) for seed in (0, 1))
    with torch.no_grad():
        teacher.classifier.weight.mul_(3)  # so that its classes differ
    return student, teacher


def batch() -> dict[str, torch.Tensor]:
    """Three texts without padding."""
    ids = torch.randint(3, VOCABULARY, (3, 7), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def minimized(losses: dict[str, Loss], student: PreTrainedModel, teacher: PreTrainedModel) -> torch.Tensor:
    with training_attention(student, teacher):
        objective = TaskDistillation(student, task_live(teacher, readings=readings_of(losses)), losses)
        return objective(labels=torch.tensor([[1.0], [0.0], [1.0]]), **batch())["loss"]


def seen_inside(model: PreTrainedModel) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Hidden states, the embedding's first, and scores of attention, as transformers and the weights give them."""
    states = model(**batch(), output_hidden_states=True).hidden_states
    scores = []
    for layer, hidden in zip(model.bert.encoder.layer, states, strict=False):
        attention = layer.attention.self
        query, key = (
            part(hidden).unflatten(-1, (attention.num_attention_heads, -1)).transpose(1, 2)
            for part in (attention.query, attention.key)
        )
        scores.append(query @ key.mT / query.shape[-1] ** 0.5)
    return list(states), scores


def hidden_and_scores(student: PreTrainedModel, teacher: PreTrainedModel) -> tuple[torch.Tensor, torch.Tensor]:
    """Squared errors as BinaryBERT's code has them, each a mean over a layer, added up."""
    (states, scores), (their_states, their_scores) = seen_inside(student), seen_inside(teacher)
    assert (len(states), len(scores)) == (DEPTH + 1, DEPTH)

    def added(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack([F.mse_loss(s, t.detach()) for s, t in zip(ours, theirs, strict=True)]).sum()

    return added(states, their_states), added(scores, their_scores)


def soft_cross_entropy(student: PreTrainedModel, teacher: PreTrainedModel) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the student's classes, and of the teacher's with themselves: its entropy."""
    ours, theirs = (outputs_of(model, batch()) for model in (student, teacher))
    wanted = theirs.detach().softmax(dim=-1)
    return tuple(-(wanted * logits.log_softmax(dim=-1)).sum(dim=-1).mean() for logits in (ours, theirs.detach()))


def assert_same(found: torch.Tensor, expected: torch.Tensor, student: PreTrainedModel, *, less: float = 0.0) -> None:
    torch.testing.assert_close(found.item(), expected.item() - less, rtol=1e-5, atol=1e-6)
    weights = list(student.parameters())
    ours, theirs = (
        torch.autograd.grad(value, weights, retain_graph=True, allow_unused=True, materialize_grads=True)
        for value in (found, expected)
    )
    assert sum(bool(slope.any()) for slope in theirs) > 5
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_binarybert_compares_inside_first_and_then_predictions() -> None:
    student, teacher = models()
    hidden, scores = hidden_and_scores(student, teacher)
    assert_same(minimized(published("BinaryBERT, phase 1"), student, teacher), hidden + scores, student)
    soft, entropy = soft_cross_entropy(student, teacher)
    assert soft > entropy > 0.1
    value = minimized(published("BinaryBERT, phase 2"), student, teacher)
    assert_same(value, soft, student, less=entropy.item())


def test_ternarybert_compares_both_at_once_and_bit_leaves_the_scores_out() -> None:
    student, teacher = models()
    hidden, scores = hidden_and_scores(student, teacher)
    soft, entropy = soft_cross_entropy(student, teacher)
    less = entropy.item()
    assert_same(minimized(published("TernaryBERT"), student, teacher), hidden + scores + soft, student, less=less)
    assert_same(minimized(published("BiT"), student, teacher), hidden + soft, student, less=less)


def test_on_a_regression_the_outputs_are_compared() -> None:
    student, teacher = models("sts-b")
    expected = F.mse_loss(*(outputs_of(model, batch()).flatten() for model in (student, teacher)))
    torch.testing.assert_close(minimized(published("BinaryBERT, phase 2"), student, teacher), expected)


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_row_trains(system: str) -> None:
    student, teacher = models()
    value = minimized(published(system), student, teacher)
    value.backward()
    assert value.item() > 1e-3
    assert student.bert.encoder.layer[0].attention.self.query.weight.grad.any()


def test_a_row_that_names_a_field_that_is_not_there_would_be_told() -> None:
    with pytest.raises(KronpressError, match="reduction"):
        parse_losses(yaml.safe_load("{logits: {reduction: sum}}"))
