"""What every distillation loss on the shelf must satisfy."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kronpress.distill import LOSSES, Loss

AGAINST_TEACHER: dict[str, list[dict[str, Any]]] = {"logits": [{}, {"temperature": 2.0}, {"kl": 0.5}]}
WITH_TEXT: dict[str, list[dict[str, Any]]] = {"logits": [{"cross_entropy": 1.0}, {"kl": 0, "cross_entropy": 1.0}]}
COMPARING = [LOSSES[name](**fields) for name, examples in AGAINST_TEACHER.items() for fields in examples]
ALL = [*COMPARING, *(LOSSES[name](**fields) for name, examples in WITH_TEXT.items() for fields in examples)]


def some_logits(*, seed: int, size: float = 1.0) -> torch.Tensor:
    return size * torch.randn(2, 5, 11, generator=torch.Generator().manual_seed(seed))


IDS = torch.arange(10).view(2, 5)


def test_every_loss_has_examples() -> None:
    assert set(AGAINST_TEACHER) == set(LOSSES)


@pytest.mark.parametrize("loss", COMPARING, ids=repr)
def test_it_vanishes_with_its_gradient_at_equality(loss: Loss) -> None:
    student = some_logits(seed=0).requires_grad_()
    value = loss(student, student.detach(), ids=IDS)
    (gradient,) = torch.autograd.grad(value, student)
    assert abs(value.item()) < 1e-6
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-7, rtol=0)


@pytest.mark.parametrize("loss", COMPARING, ids=repr)
def test_it_does_not_see_a_shift_of_the_logits(loss: Loss) -> None:
    student = some_logits(seed=0)
    assert abs(loss(student + 3.0, student, ids=IDS).item()) < 1e-5


@pytest.mark.parametrize("loss", COMPARING, ids=repr)
def test_it_is_positive_elsewhere(loss: Loss) -> None:
    assert loss(some_logits(seed=0), some_logits(seed=1), ids=IDS).item() > 0.01


@pytest.mark.parametrize("loss", ALL, ids=repr)
@pytest.mark.parametrize("size", [1e4, 1e30])
def test_it_is_finite_for_extreme_logits(loss: Loss, size: float) -> None:
    student = some_logits(seed=0, size=size).requires_grad_()
    value = loss(student, some_logits(seed=1, size=size), ids=IDS)
    (gradient,) = torch.autograd.grad(value, student)
    assert value.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("loss", ALL, ids=repr)
def test_it_is_finite_where_nothing_is_predicted(loss: Loss) -> None:
    student = some_logits(seed=0).requires_grad_()
    value = loss(student, some_logits(seed=1), ids=torch.full((2, 5), -100))
    assert value.isfinite()
    assert torch.autograd.grad(value, student)[0].isfinite().all()


@pytest.mark.parametrize("loss", ALL, ids=repr)
def test_a_small_step_down_the_gradient_lowers_it(loss: Loss) -> None:
    student, teacher = some_logits(seed=0).requires_grad_(), some_logits(seed=1)
    value = loss(student, teacher, ids=IDS)
    (gradient,) = torch.autograd.grad(value, student)
    assert loss(student - 0.1 * gradient, teacher, ids=IDS) < value


@pytest.mark.parametrize("loss", ALL, ids=repr)
def test_it_does_not_depend_on_the_order_of_the_batch(loss: Loss) -> None:
    student, teacher = some_logits(seed=0), some_logits(seed=1)
    torch.testing.assert_close(loss(student.flip(0), teacher.flip(0), ids=IDS.flip(0)), loss(student, teacher, ids=IDS))


@pytest.mark.parametrize("loss", ALL, ids=repr)
def test_half_precision_logits_give_nearly_the_same(loss: Loss) -> None:
    student, teacher = some_logits(seed=0).bfloat16().requires_grad_(), some_logits(seed=1).bfloat16()
    value = loss(student, teacher, ids=IDS)
    torch.testing.assert_close(value, loss(student.float(), teacher.float(), ids=IDS))
    (gradient,) = torch.autograd.grad(value, student)
    assert gradient.dtype == torch.bfloat16
