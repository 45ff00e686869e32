from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from kronpress.errors import KronpressError
from kronpress.losses import LogitDistillation, Predictions, Top


def some_logits(*, vocabulary: int = 9, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (2 * torch.randn(6, vocabulary, generator=generator, dtype=torch.float64) for _ in range(2))
    return student.requires_grad_(), teacher


def joined(log_probabilities: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
    """Those of some words, and of all others together."""
    p = log_probabilities.exp()
    chosen = p.gather(1, words)
    return torch.cat([chosen, (p.scatter(1, words, 0).sum(dim=1, keepdim=True)).clamp_min(1e-34)], dim=1).log()


def plain(loss: LogitDistillation, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """The formula of the docstring in the functions of torch."""
    T = loss.temperature
    ours, theirs = (F.log_softmax(each / T, -1) for each in (student, teacher))
    if loss.top_k is not None:
        words = teacher.topk(min(loss.top_k, teacher.shape[1])).indices
        ours, theirs = joined(ours, words), joined(theirs, words)

    def kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
        return F.kl_div(q, p, log_target=True, reduction="none").sum(dim=1)

    middle = ((ours.exp() + theirs.exp()) / 2).log()
    values = {
        "forward": kl(theirs, ours),
        "reverse": kl(ours, theirs),
        "jensen_shannon": (kl(ours, middle) + kl(theirs, middle)) / 2,
    }
    return T**2 * values[loss.divergence]


def assert_equals_the_plain_formula(loss: LogitDistillation, student: torch.Tensor, teacher: torch.Tensor) -> None:
    value, slope = loss.per_token(Predictions(student.detach()), Predictions(teacher), torch.zeros(len(student)).long())
    expected = plain(loss, student, teacher)
    torch.testing.assert_close(value, expected.detach(), atol=1e-8, rtol=1e-6)
    torch.testing.assert_close(slope, torch.autograd.grad(expected.sum(), student)[0], atol=1e-8, rtol=1e-6)


@given(
    temperature=st.floats(0.5, 4), divergence=st.sampled_from(["forward", "reverse", "jensen_shannon"]),
    top_k=st.none() | st.integers(1, 8), vocabulary=st.integers(9, 14), seed=st.integers(0, 99),
)  # fmt: skip
@settings(deadline=None, max_examples=80)
def test_value_and_gradient_are_those_of_the_plain_formula(vocabulary: int, seed: int, **fields: Any) -> None:
    assert_equals_the_plain_formula(LogitDistillation(**fields), *some_logits(vocabulary=vocabulary, seed=seed))


@pytest.mark.parametrize("divergence", ["forward", "reverse", "jensen_shannon"])
@pytest.mark.parametrize("top_k", [9, 100])
def test_as_many_words_as_there_are_tell_all_apart(divergence: str, top_k: int) -> None:
    student, teacher = (Predictions(each.detach().float()) for each in some_logits())
    found, expected = (
        LogitDistillation.model_validate({"divergence": divergence, "top_k": k}).per_token(
            student, teacher, torch.zeros(6).long()
        )
        for k in (top_k, None)
    )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@given(seed=st.integers(0, 99), top_k=st.integers(1, 8), divergence=st.sampled_from(["forward", "reverse"]))
@settings(deadline=None, max_examples=30)
def test_telling_fewer_words_apart_bounds_it_from_below(seed: int, **fields: Any) -> None:
    student, teacher = (Predictions(each.detach()) for each in some_logits(seed=seed))
    labels = torch.zeros(6).long()
    whole, _ = LogitDistillation(divergence=fields["divergence"]).per_token(student, teacher, labels)
    part, _ = LogitDistillation(**fields).per_token(student, teacher, labels)
    assert (part <= whole + 1e-9).all()
    assert (part >= -1e-9).all()


@pytest.mark.parametrize("divergence", ["forward", "reverse", "jensen_shannon"])
def test_a_cache_of_more_words_is_as_good_as_the_teacher(divergence: str) -> None:
    student, teacher = (Predictions(each.detach()) for each in some_logits())
    loss = LogitDistillation.model_validate({"divergence": divergence, "top_k": 3, "temperature": 2})
    labels = torch.zeros(6).long()
    cached = loss.per_token(student, teacher.top(5, temperature=2.0), labels)
    torch.testing.assert_close(cached, loss.per_token(student, teacher, labels))


def test_a_sure_teacher_costs_the_students_surprise() -> None:
    teacher = torch.zeros(1, 4)
    teacher[:, 2] = 1e4
    value, slope = LogitDistillation().per_token(
        Predictions(torch.zeros(1, 4)), Predictions(teacher), torch.zeros(1).long()
    )
    assert value.item() == pytest.approx(math.log(4))
    assert slope.tolist() == [pytest.approx([0.25, 0.25, -0.75, 0.25])]


def test_by_hand_at_two_words() -> None:
    student, teacher = Predictions(torch.zeros(1, 2)), Predictions(torch.tensor([[math.log(3.0), 0.0]]))
    expected = {
        "forward": 0.75 * math.log(1.5) + 0.25 * math.log(0.5),
        "reverse": 0.5 * math.log(1 / 1.5) + 0.5 * math.log(2.0),
        "jensen_shannon": (0.5 * math.log(0.5 / 0.625) + 0.5 * math.log(0.5 / 0.375)) / 2
        + (0.75 * math.log(0.75 / 0.625) + 0.25 * math.log(0.25 / 0.375)) / 2,
    }
    for divergence, known in expected.items():
        loss = LogitDistillation.model_validate({"divergence": divergence})
        assert loss.per_token(student, teacher, torch.zeros(1).long())[0].item() == pytest.approx(known, abs=1e-6)


def test_without_a_teacher_or_with_a_cache_of_too_little_it_says_so() -> None:
    student, labels = Predictions(torch.zeros(1, 4)), torch.zeros(1).long()
    cached = Predictions(torch.zeros(1, 4)).top(2, temperature=1.0)
    with pytest.raises(KronpressError, match="compares with a teacher"):
        LogitDistillation().per_token(student, None, labels)
    with pytest.raises(KronpressError, match="set top_k"):
        LogitDistillation().per_token(student, cached, labels)
    for fields in ({"top_k": 3}, {"top_k": 2, "temperature": 2}):
        with pytest.raises(ValueError, match=r"only the 2 likeliest ids at temperature 1\.0 are stored"):
            LogitDistillation.model_validate(fields).per_token(student, cached, labels)


def test_words_that_are_left_out_join_the_rest() -> None:
    predictions = Predictions(torch.tensor([[0.5, 0.25, 0.15, 0.1]]).log())
    top = predictions.top(2, temperature=1.0)
    assert isinstance(top, Top)
    assert top.ids.tolist() == [[0, 1]]
    torch.testing.assert_close(top.log_probabilities.exp(), torch.tensor([[0.5, 0.25, 0.25]]))
    torch.testing.assert_close(top.top(1, temperature=1.0).log_probabilities.exp(), torch.tensor([[0.5, 0.5]]))


@pytest.mark.parametrize("divergence", ["forward", "reverse", "jensen_shannon"])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_coarse_divergence_and_its_gradient_are_those_of_the_plain_formula(
    divergence: Any, temperature: float
) -> None:
    ours, theirs = (3 * torch.randn(7, 30, dtype=torch.float64) for _ in range(2))
    ours.requires_grad_()
    ids = theirs.topk(4, dim=-1).indices

    def coarse(logits: torch.Tensor) -> torch.Tensor:
        p = torch.softmax(logits / temperature, dim=-1)
        best = p.gather(1, ids)
        return torch.cat([best, 1 - best.sum(dim=1, keepdim=True)], dim=1)

    p, q = coarse(theirs), coarse(ours)
    middle = (p + q) / 2
    pairs = {"forward": [(p, q)], "reverse": [(q, p)], "jensen_shannon": [(p, middle), (q, middle)]}[divergence]
    plain = sum((a * (a / b).log()).sum(dim=1) for a, b in pairs) / len(pairs) * temperature**2
    loss = LogitDistillation(divergence=divergence, temperature=temperature, top_k=4)
    labels = torch.zeros(7, dtype=torch.long)
    top = Predictions(theirs.float()).top(4, temperature=temperature)
    value, slope = loss.per_token(Predictions(ours.detach().float()), top, labels)
    torch.testing.assert_close(value.double(), plain.detach(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(slope.double(), torch.autograd.grad(plain.sum(), ours)[0], atol=1e-5, rtol=1e-4)
