"""How far the student's predictions are from the teacher's."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from kronpress.errors import KronpressError
from kronpress.losses.loss import LOSSES, LogitLoss
from kronpress.losses.predictions import Predictions, TeacherPredictions

Divergence = Literal["forward", "reverse", "jensen_shannon"]


@LOSSES.enroll
class LogitDistillation(LogitLoss):
    """T² times a divergence between the predictions at temperature T (Hinton et al., 2015, section 2).

    With `top_k` both are distributions over the teacher's k likeliest tokens and all others taken together, which
    bounds the divergence from below and is all that is stored of a teacher where `cache_teacher` is set.

    Attributes:
        divergence: `forward` is KL(teacher ‖ student), `reverse` KL(student ‖ teacher), `jensen_shannon` the mean of
            the KLs of both to their mean.
        temperature: T, divides the logits of both models.
        top_k: how many of the teacher's likeliest tokens are told apart; all by default.
        at: `all` tokens that are not padding, or only those with `labels` (the masked ones of a masked language model).
    """

    kind: ClassVar[str] = "logits"
    divergence: Divergence = "forward"
    temperature: float = Field(default=1.0, gt=0)
    top_k: int | None = Field(default=None, ge=1)
    at: Literal["all", "labels"] = "all"

    @property
    def labeled(self) -> bool:
        """Whether only tokens with a label count."""
        return self.at == "labels"

    def per_token(
        self, student: Predictions, teacher: TeacherPredictions | None, labels: Int[Tensor, " tokens"]
    ) -> tuple[Float[Tensor, " tokens"], Float[Tensor, "tokens vocabulary"]]:
        """Return T² · divergence and its gradient."""
        if teacher is None:
            raise KronpressError("the loss 'logits' compares with a teacher; give one, or use cross_entropy alone")
        t = self.temperature
        if self.top_k is None:
            if not isinstance(teacher, Predictions):
                raise KronpressError(
                    "the stored teacher outputs hold the likeliest tokens only; set top_k of the loss 'logits'"
                )
            value, slope = _divergence(
                self.divergence, student.log_probabilities(t), other=teacher.log_probabilities(t)
            )
            return value * t**2, slope.mul_(t)
        top = teacher.top(self.top_k, temperature=t)
        ours = student.over(top.ids, temperature=t)
        value, slope = _divergence(self.divergence, ours, other=top.log_probabilities)
        rest = (student.log_probabilities(t) - ours[:, -1:]).clamp_max(0).exp_().mul_(slope[:, -1:])
        return value * t**2, rest.scatter_(1, top.ids, slope[:, :-1]).mul_(t)


def _divergence(
    kind: Divergence, log_student: Float[Tensor, "tokens events"], *, other: Float[Tensor, "tokens events"]
) -> tuple[Float[Tensor, " tokens"], Float[Tensor, "tokens events"]]:
    """Return the divergence, and its gradient where log_student = log softmax(u), with respect to u."""
    if kind == "forward":
        expected = other.exp()
        value = torch.linalg.vecdot(expected, other - log_student)
        return value, log_student.exp().sub_(expected)
    probable = log_student.exp()
    if kind == "reverse":
        excess = log_student - other
        value = torch.linalg.vecdot(probable, excess)
        return value, excess.sub_(value[:, None]).mul_(probable)
    middle = torch.logaddexp(log_student, other).sub_(math.log(2))
    excess = log_student - middle
    ours, theirs = torch.linalg.vecdot(probable, excess), torch.linalg.vecdot(other.exp(), other - middle)
    return (ours + theirs) / 2, excess.sub_(ours[:, None]).mul_(probable).div_(2)
