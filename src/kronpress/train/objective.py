"""Student, teacher and losses as one module, whose forward pass gives what is minimized."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from kronpress.activations.trace import Sizes, Trace
from kronpress.errors import KronpressError
from kronpress.losses import (
    IGNORED,
    LayerLoss,
    LogitDistillation,
    LogitLoss,
    Loss,
    Predictions,
    TeacherPredictions,
    Top,
    readings_of_student,
)
from kronpress.teacher import Teacher, TextHead
from kronpress.train.head import through_head

PART_ELEMENTS = 2**20  # logits that are looked at together: 4 MB in fp32, which stay in the cache


class Objective(nn.Module):
    """The weighted sum of losses of a student, most of them between it and its teacher.

    Its parameters are the student's and those of projections between models of different width, beside which lie the
    banks that losses keep from batch to batch; the teacher is no submodule, so that it is neither trained nor saved nor
    sharded. What both models compute, and which of it the
    losses of logits see, is for subclasses to say.

    Attributes:
        teacher: what the student learns from, a model or what one said; None where no loss compares.
        parts_so_far: each loss before its weight, summed over the batches since `take_parts`, and their number.
    """

    def __init__(self, student: PreTrainedModel, teacher: Teacher[Any] | None, losses: Mapping[str, Loss]) -> None:
        super().__init__()
        self.student, self.teacher, self.losses = student, teacher, dict(losses)
        self.logit_losses = {name: loss for name, loss in losses.items() if isinstance(loss, LogitLoss)}
        self.layer_losses = {name: loss for name, loss in losses.items() if isinstance(loss, LayerLoss)}
        self.readings = readings_of_student(losses)
        self.projections = nn.ModuleDict()
        for name, loss in self.layer_losses.items():
            projection = loss.projection(Sizes.of(student), self._sizes_of_teacher(name, loss))
            if projection is not None:
                self.projections[_key(name)] = projection
        self._require_offered()
        self.parts_so_far: tuple[Tensor, int] = (torch.zeros(len(losses)), 0)

    def _require_offered(self) -> None:
        """See that a teacher whose likeliest ids alone are stored has as many as losses look at."""
        offered = None if self.teacher is None else self.teacher.offer.top_k
        for name, loss in self.logit_losses.items():
            if offered is not None and isinstance(loss, LogitDistillation) and not 0 < (loss.top_k or 0) <= offered:
                raise KronpressError(
                    f"the loss '{name}' needs more of the teacher than its {offered} likeliest tokens, which are stored"
                )

    def _sizes_of_teacher(self, name: str, loss: LayerLoss) -> Sizes:
        """Return the sizes of the teacher, which must give what a loss reads."""
        if self.teacher is None:
            raise KronpressError(f"the loss '{name}' compares with a teacher; give one")
        offer = self.teacher.offer
        missing = sorted(loss.reads - offer.readings)
        if missing or offer.sizes is None:
            raise KronpressError(f"the loss '{name}' reads {', '.join(missing)}, which the teacher does not give")
        return offer.sizes

    @property
    def models(self) -> tuple[PreTrainedModel, ...]:
        """The models that run in a forward pass."""
        return (self.student, *(self.teacher.models if self.teacher is not None else ()))

    def take_parts(self) -> dict[str, float]:
        """Return the mean of each loss over the batches since the last call."""
        total, batches = self.parts_so_far
        values = (total / max(batches, 1)).tolist()
        self.parts_so_far = torch.zeros_like(total), 0
        return dict(zip(self.losses, values, strict=True))

    def sum_of(self, values: Mapping[str, Tensor], *, already: Tensor | None = None) -> dict[str, Tensor]:
        """Note what each loss came to and return what is minimized; `already` is the weighted sum of some of them."""
        total = already
        for name, loss in self.losses.items():
            if already is None or name not in self.logit_losses:
                total = loss.weight * values[name] if total is None else total + loss.weight * values[name]
        assert total is not None
        total_parts, batches = self.parts_so_far
        parts = torch.stack([values[name].detach().float() for name in self.losses])
        self.parts_so_far = total_parts.to(parts.device) + parts, batches + 1
        return {"loss": total}

    def of_logits(
        self, hidden: Float[Tensor, "tokens dim"], targets: Targets, *, head: StudentHead
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted sum of the losses of logits, and each of them."""
        losses = self.logit_losses
        if not losses:
            return hidden.new_zeros(()), {}
        if all(loss.labeled for loss in losses.values()):  # a masked language model labels one token in seven
            chosen = (targets.labels != IGNORED).nonzero()[:, 0]
            hidden, targets = hidden[chosen], targets.at(chosen)
        score = _Score(losses, targets, common=head.common)
        weighted, *values = through_head(hidden, head.module, score, vocabulary=head.outputs)
        return weighted, dict(zip(losses, values, strict=True))

    def of_layers(self, ours: Trace, theirs: Trace, *, seen: Bool[Tensor, "batch tokens"]) -> dict[str, Tensor]:
        """Return the losses between activations."""
        maps = dict(self.projections.items())
        losses = self.layer_losses.items()
        return {name: loss(ours, theirs, seen=seen, projection=maps.get(_key(name))) for name, loss in losses}


def _key(label: str) -> str:
    """Return a label as the name of a module."""
    return "of_" + label.replace(".", "_")


@dataclass(frozen=True)
class StudentHead:
    """What makes logits of what the losses of logits are given.

    Attributes:
        module: the student's head.
        outputs: how many logits a token has in the student.
        common: how many of them, the first ones, losses compare with the teacher's, which may have others behind them.
    """

    module: nn.Module
    outputs: int
    common: int


@dataclass(frozen=True)
class Targets:
    """What the tokens of a batch are compared with, all with the tokens first.

    Attributes:
        labels: the id to be predicted, or `IGNORED`.
        seen: whether a token is no padding.
        teacher: what the teacher predicts.
    """

    labels: Int[Tensor, " tokens"]
    seen: Bool[Tensor, " tokens"]
    teacher: TextHead | Predictions | Top | None = None

    def at(self, places: Int[Tensor, " some"] | slice) -> Targets:
        """Return those of some tokens."""
        teacher = None if self.teacher is None else self.teacher.at(places)
        return Targets(self.labels[places], self.seen[places], teacher)


class _Score:
    """Says what losses of logits make of a chunk of tokens."""

    def __init__(self, losses: Mapping[str, LogitLoss], targets: Targets, *, common: int) -> None:
        self.losses, self.common = losses, common
        self.targets = targets if any(loss.compares for loss in losses.values()) else replace(targets, teacher=None)
        counted = [targets.labels != IGNORED if loss.labeled else targets.seen for loss in losses.values()]
        self.shares = [counts.float() / counts.sum().clamp_min(1) for counts in counted]

    @torch.no_grad()
    def __call__(self, logits: Float[Tensor, "tokens vocabulary"], rows: slice) -> tuple[Tensor, Tensor]:
        """Return the weighted sum of the losses, then each; and the gradient of the sum."""
        targets = self.targets.at(rows)
        theirs = None if targets.teacher is None else targets.teacher.within(self.common)
        size = max(1, len(logits) if logits.is_cuda else PART_ELEMENTS // logits.shape[1])
        slope, totals = torch.empty_like(logits), logits.new_zeros(1 + len(self.losses), dtype=torch.float32)
        with torch.autocast(logits.device.type, enabled=False):
            for start in range(0, len(logits), size):
                part = slice(start, start + size)
                teacher = None if theirs is None else theirs.at(part)
                shares = [share[rows][part] for share in self.shares]
                slope[part] = self._part(logits[part], teacher, targets.labels[part], shares=shares, totals=totals)
        for index, loss in enumerate(self.losses.values(), start=1):
            totals[0] += loss.weight * totals[index]
        return totals, slope

    def _part(
        self,
        logits: Tensor,
        teacher: TeacherPredictions | None,
        labels: Tensor,
        *,
        shares: Sequence[Float[Tensor, " tokens"]],
        totals: Float[Tensor, " losses"],
    ) -> Tensor:
        """Add the losses of a few tokens to `totals[1:]`, and return the gradient of their weighted sum."""
        student, gradients = Predictions(logits.float()), []
        rest = logits.shape[1] - self.common
        compared = Predictions(student.logits[:, : self.common]) if rest else student
        for index, (loss, share) in enumerate(zip(self.losses.values(), shares, strict=True)):
            value, gradient = loss.per_token(compared if loss.compares else student, teacher, labels)
            totals[1 + index] += torch.dot(value, share)
            gradient.mul_(loss.weight * share[:, None])
            gradients.append(F.pad(gradient, (0, rest)) if rest and loss.compares else gradient)
        return gradients[0] if len(gradients) == 1 else torch.stack(gradients).sum(dim=0)
