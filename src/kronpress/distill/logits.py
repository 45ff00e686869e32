"""Distillation from the teacher's logits, in chunks so that a large vocabulary fits."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from kronpress.distill.loss import LOSSES, Loss

Weights = tuple[float, float, float]  # temperature, kl, cross_entropy

IGNORED = -100
_CHUNK_ELEMENTS = 2**23  # logits per chunk: 32 MB in fp32


@LOSSES.register("logits")
class LogitDistillation(Loss):
    """kl · T² · KL(teacher ‖ student) + cross_entropy · CE(next token), per token (Hinton et al., 2015).

    The log-softmax is taken in fp32 over a chunk of tokens at a time, and the gradient is formed with it, so
    that no fp32 copy of all logits ever exists. Zero at teacher = student when `cross_entropy` is 0.

    Attributes:
        temperature: T, divides the logits of both models in the KL term.
        kl: weight of the KL term.
        cross_entropy: weight of the cross-entropy with the text.
    """

    kind: ClassVar[str] = "logits"
    temperature: float = Field(default=1.0, gt=0)
    kl: float = Field(default=1.0, ge=0)
    cross_entropy: float = Field(default=0.0, ge=0)

    def __call__(
        self,
        student: Float[Tensor, "batch tokens vocabulary"],
        teacher: Float[Tensor, "batch tokens vocabulary"],
        *,
        ids: Int[Tensor, "batch tokens"],
    ) -> Float[Tensor, ""]:
        """Return the loss in nats per token; the logits at position i are for token i + 1 of `ids`."""
        targets = F.pad(ids[:, 1:], (0, 1), value=IGNORED)
        weights = (self.temperature, self.kl, self.cross_entropy)
        apply: Any = _Chunked.apply
        loss: Tensor = apply(student.flatten(0, 1), teacher.flatten(0, 1), targets.flatten(), weights)
        return loss


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, targets: Tensor, weights: Weights) -> Tensor:
        gradient = torch.empty_like(student)
        size = max(1, _CHUNK_ELEMENTS // student.shape[1])
        predicted = int((targets != IGNORED).sum())
        total = torch.zeros((), dtype=torch.float32, device=student.device)
        for start in range(0, len(student), size):
            rows = slice(start, start + size)
            logits = student[rows].float(), teacher[rows].float()
            loss, slope = _chunk(*logits, targets[rows], weights, len(student), predicted)
            gradient[rows] = slope
            total += loss
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_outputs[0].to(gradient.dtype), None, None, None


def _chunk(
    student: Tensor, teacher: Tensor, targets: Tensor, weights: Weights, tokens: int, predicted: int
) -> tuple[Tensor, Tensor]:
    """Return the chunk's part of the loss, and its gradient with respect to the student's logits."""
    temperature, kl, cross_entropy = weights
    log_student = torch.log_softmax(student / temperature, dim=-1)
    log_teacher = torch.log_softmax(teacher / temperature, dim=-1)
    probable = log_teacher.exp()
    share = kl * temperature / tokens
    loss = share * temperature * (probable * (log_teacher - log_student)).sum()
    gradient = (log_student.exp() - probable) * share
    if cross_entropy:
        plain = log_student if temperature == 1 else torch.log_softmax(student, dim=-1)
        known = (targets != IGNORED).float()[:, None] * (cross_entropy / max(predicted, 1))
        labels = targets.clamp_min(0)[:, None]
        loss = loss - (plain.gather(1, labels) * known).sum()
        gradient += plain.exp() * known
        gradient.scatter_add_(1, labels, -known)
    return loss, gradient
