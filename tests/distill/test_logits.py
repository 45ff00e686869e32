from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from kronpress.distill import LogitDistillation, logits

IGNORED = -100


def inputs(
    *, batch: int = 2, tokens: int = 6, vocabulary: int = 9, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (2 * torch.randn(batch, tokens, vocabulary, generator=generator) for _ in range(2))
    return student.requires_grad_(), teacher, torch.randint(vocabulary, (batch, tokens), generator=generator)


def plain(loss: LogitDistillation, student: torch.Tensor, teacher: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """The formula of the docstring in the functions of torch."""
    T, vocabulary = loss.temperature, student.shape[-1]
    total = torch.zeros(())
    if loss.kl:
        log_student, log_teacher = (F.log_softmax(each.view(-1, vocabulary) / T, -1) for each in (student, teacher))
        total = loss.kl * T**2 * F.kl_div(log_student, log_teacher, log_target=True, reduction="batchmean")
    if loss.cross_entropy:
        targets = ids[:, 1:].flatten()
        predicted = student[:, :-1].reshape(-1, vocabulary)
        total = total + loss.cross_entropy * F.cross_entropy(predicted, targets, ignore_index=IGNORED)
    return total


def assert_equals_the_plain_formula(
    loss: LogitDistillation, student: torch.Tensor, teacher: torch.Tensor, ids: torch.Tensor
) -> None:
    ours, theirs = loss(student, teacher, ids=ids), plain(loss, student, teacher, ids)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    gradients = [torch.autograd.grad(3.0 * value, student)[0] for value in (ours, theirs)]
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-5)


@given(
    temperature=st.floats(0.5, 4), kl=st.sampled_from([0.0, 0.5, 1.0]), cross_entropy=st.sampled_from([0.0, 0.3, 1.0]),
    vocabulary=st.integers(2, 12), tokens=st.integers(2, 7), seed=st.integers(0, 99),
)  # fmt: skip
@settings(deadline=None, max_examples=60)
def test_value_and_gradient_are_those_of_the_plain_formula(
    temperature: float, kl: float, cross_entropy: float, vocabulary: int, tokens: int, seed: int
) -> None:
    if kl == cross_entropy == 0:
        return
    loss = LogitDistillation(temperature=temperature, kl=kl, cross_entropy=cross_entropy)
    assert_equals_the_plain_formula(loss, *inputs(tokens=tokens, vocabulary=vocabulary, seed=seed))


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_padding_is_not_predicted(temperature: float) -> None:
    student, teacher, ids = inputs()
    ids[0, 3:] = IGNORED
    loss = LogitDistillation(kl=0.0, cross_entropy=1.0, temperature=temperature)
    assert_equals_the_plain_formula(loss, student, teacher, ids)
    (gradient,) = torch.autograd.grad(loss(student, teacher, ids=ids), student)
    assert not gradient[0, 2:].any()


@pytest.mark.parametrize("elements", [1, 9, 20, 10**6])
def test_chunks_add_up(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    student, teacher, ids = inputs()
    monkeypatch.setattr(logits, "_CHUNK_ELEMENTS", elements)
    assert_equals_the_plain_formula(LogitDistillation(cross_entropy=0.5, temperature=2.0), student, teacher, ids)


def test_a_sure_teacher_costs_the_students_surprise() -> None:
    teacher = torch.zeros(1, 1, 4)
    teacher[..., 2] = 1e4
    value = LogitDistillation()(torch.zeros(1, 1, 4), teacher, ids=torch.zeros(1, 1, dtype=torch.long))
    assert value.item() == pytest.approx(math.log(4))


def test_the_teacher_gets_no_gradient() -> None:
    student, teacher, ids = inputs()
    teacher.requires_grad_()
    LogitDistillation()(student, teacher, ids=ids).backward()
    assert teacher.grad is None
    assert student.grad is not None
