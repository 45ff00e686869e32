"""Student, teacher and losses as one module, whose forward pass gives what is minimized."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from kronpress.activations.head import narrowed
from kronpress.activations.trace import Reading, Sizes, Trace
from kronpress.errors import KronpressError
from kronpress.losses import IGNORED, LayerLoss, LogitLoss, Loss, Predictions, Teacher, Top
from kronpress.train.head import through_head

_PART_ELEMENTS = 2**20  # logits that are looked at together: 4 MB in fp32, which stay in the cache


class Objective(nn.Module):
    """The weighted sum of losses of a student, most of them between it and its teacher.

    Its parameters are the student's and those of projections between models of different width; the teacher is no
    submodule, so that it is neither trained nor saved nor sharded. What both models compute, and which of it the
    losses of logits see, is for subclasses to say.

    Attributes:
        parts_so_far: each loss before its weight, summed over the batches since `take_parts`, and their number.
    """

    def __init__(self, student: PreTrainedModel, teacher: PreTrainedModel | None, losses: Mapping[str, Loss]) -> None:
        super().__init__()
        self.student, self.losses = student, dict(losses)
        self._teacher = (teacher,)  # in a tuple it is no submodule
        self.logit_losses = {name: loss for name, loss in losses.items() if isinstance(loss, LogitLoss)}
        self.layer_losses = {name: loss for name, loss in losses.items() if isinstance(loss, LayerLoss)}
        self.readings: frozenset[Reading] = frozenset().union(*(loss.reads for loss in self.layer_losses.values()))
        self.projections = nn.ModuleDict()
        for name, loss in self.layer_losses.items():
            if teacher is None:
                raise KronpressError(f"the loss '{name}' compares with a teacher; give one")
            projection = loss.projection(Sizes.of(student), Sizes.of(teacher))
            if projection is not None:
                self.projections[_key(name)] = projection
        self.parts_so_far: tuple[Tensor, int] = (torch.zeros(len(losses)), 0)

    @property
    def teacher(self) -> PreTrainedModel | None:
        """The model to learn from, if any loss compares with one."""
        return self._teacher[0]

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
        self, hidden: Float[Tensor, "tokens dim"], answers: Answers, *, heads: Heads
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted sum of the losses of logits, and each of them."""
        losses = self.logit_losses
        if not losses:
            return hidden.new_zeros(()), {}
        if all(loss.labeled for loss in losses.values()):  # a masked language model labels one token in seven
            chosen = (answers.labels != IGNORED).nonzero()[:, 0]
            hidden, answers = hidden[chosen], answers.at(chosen)
        score = _Score(losses, answers, heads)
        weighted, *each = through_head(hidden, heads.student, score, vocabulary=heads.outputs)
        return weighted, dict(zip(losses, each, strict=True))

    def of_layers(self, ours: Trace, theirs: Trace, *, seen: Bool[Tensor, "batch tokens"]) -> dict[str, Tensor]:
        """Return the losses between activations."""
        maps = dict(self.projections.items())
        losses = self.layer_losses.items()
        return {name: loss(ours, theirs, seen=seen, projection=maps.get(_key(name))) for name, loss in losses}


def _key(label: str) -> str:
    """Return a label as the name of a module."""
    return "of_" + label.replace(".", "_")


@dataclass(frozen=True)
class Heads:
    """What makes logits of what the losses of logits are given.

    Attributes:
        outputs: how many logits a token has in the student.
        common: how many of them, the first ones, losses compare with the teacher's, which may have others behind them.
    """

    student: nn.Module
    teacher: nn.Module | None
    outputs: int
    common: int


@dataclass(frozen=True)
class Answers:
    """What the tokens of a batch are compared with, all with the tokens first."""

    labels: Int[Tensor, " tokens"]
    seen: Bool[Tensor, " tokens"]
    hidden: Float[Tensor, "tokens dim"] | None = None
    top: Top | None = None

    def at(self, places: Int[Tensor, " some"] | slice) -> Answers:
        """Return those of some tokens."""
        top = (
            None
            if self.top is None
            else replace(self.top, words=self.top.words[places], log_probabilities=self.top.log_probabilities[places])
        )
        hidden = None if self.hidden is None else self.hidden[places]
        return Answers(self.labels[places], self.seen[places], hidden, top)


class _Score:
    """Says what losses of logits make of a chunk of tokens."""

    def __init__(self, losses: Mapping[str, LogitLoss], answers: Answers, heads: Heads) -> None:
        self.losses, self.answers, self.common = losses, answers, heads.common
        self.teacher_head = None if heads.teacher is None else narrowed(heads.teacher, heads.common)
        counted = [answers.labels != IGNORED if loss.labeled else answers.seen for loss in losses.values()]
        self.shares = [each.float() / each.sum().clamp_min(1) for each in counted]

    @torch.no_grad()
    def __call__(self, logits: Float[Tensor, "tokens vocabulary"], rows: slice) -> tuple[Tensor, Tensor]:
        """Return the weighted sum of the losses, then each; and the gradient of the sum."""
        answers = self.answers.at(rows)
        theirs = self.teacher_head(answers.hidden) if self.teacher_head and answers.hidden is not None else None
        size = max(1, len(logits) if logits.is_cuda else _PART_ELEMENTS // logits.shape[1])
        slope, totals = torch.empty_like(logits), logits.new_zeros(1 + len(self.losses), dtype=torch.float32)
        with torch.autocast(logits.device.type, enabled=False):
            for start in range(0, len(logits), size):
                part = slice(start, start + size)
                teacher = answers.at(part).top if theirs is None else Predictions(theirs[part].float())
                shares = [share[rows][part] for share in self.shares]
                slope[part] = self._part(logits[part], teacher, answers.labels[part], shares=shares, totals=totals)
        for index, loss in enumerate(self.losses.values(), start=1):
            totals[0] += loss.weight * totals[index]
        return totals, slope

    def _part(
        self,
        logits: Tensor,
        teacher: Teacher | None,
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
