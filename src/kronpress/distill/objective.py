"""Student, teacher and losses as one module, whose forward pass gives what is minimized."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from kronpress.distill.head import through_head, withheld
from kronpress.distill.losses import IGNORED, LayerLoss, LogitLoss, Loss, Predictions, Teacher, Top
from kronpress.distill.trace import Reading, Sizes, Trace, tracing
from kronpress.errors import KronpressError
from kronpress.families import has_module, layout
from kronpress.precision import mixed_precision

_PART_ELEMENTS = 2**20  # logits that are looked at together: 4 MB in fp32, which stay in the cache


class Distillation(nn.Module):
    """The weighted sum of losses between a student and its teacher.

    Its parameters are the student's and those of projections between models of different width; the teacher is no
    submodule, so that it is neither trained nor saved nor sharded. Matrix products run in bfloat16 where the device is
    faster at it, the teacher's weights being kept in it; the student's weights and all losses are in fp32.

    Attributes:
        cached_temperature: of the predictions that batches from a teacher cache carry.
        parts_so_far: each loss before its weight, summed over the batches since `take_parts`, and their number.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        teacher: PreTrainedModel | None,
        losses: Mapping[str, Loss],
        *,
        cached_temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.student, self.losses, self.cached_temperature = student, dict(losses), cached_temperature
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

    def forward(
        self,
        input_ids: Int[Tensor, "batch tokens"],
        labels: Int[Tensor, "batch tokens"],
        attention_mask: Int[Tensor, "batch tokens"] | None = None,
        *,
        cached_words: Int[Tensor, "batch tokens k"] | None = None,
        cached_log_probabilities: Float[Tensor, "batch tokens events"] | None = None,
    ) -> dict[str, Tensor]:
        """Return the loss of a batch in nats per token.

        Args:
            input_ids: what both models read.
            labels: the word to be predicted at each place, -100 for none.
            attention_mask: 0 at padding.
            cached_words: the teacher's likeliest words in place of a teacher, from a teacher cache.
            cached_log_probabilities: of those words and, last, of all others together.
        """
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        seen = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        top = None
        if cached_words is not None and cached_log_probabilities is not None:
            top = Top(cached_words.flatten(0, 1), cached_log_probabilities.flatten(0, 1), self.cached_temperature)
        answers = _Answers(labels.flatten(), seen.flatten(), top=top)
        theirs = Trace()
        with mixed_precision(input_ids.device):
            if self.teacher is not None and top is None:
                with torch.no_grad():
                    wanted, theirs = self._look(self.teacher, inputs)
                answers = replace(answers, hidden=wanted.flatten(0, 1))
            hidden, ours = self._look(self.student, inputs)
            total, values = self._of_logits(hidden.flatten(0, 1), answers)
        layers = self._of_layers(ours, theirs, seen=seen)
        for name, value in layers.items():
            total = total + self.losses[name].weight * value
        values |= layers
        total_parts, batches = self.parts_so_far
        parts = torch.stack([values[name].detach().float() for name in self.losses])
        self.parts_so_far = total_parts.to(parts.device) + parts, batches + 1
        return {"loss": total}

    def _look(
        self, model: PreTrainedModel, inputs: Mapping[str, Tensor | None]
    ) -> tuple[Float[Tensor, "batch tokens dim"], Trace]:
        """Run a model up to its output head; return what enters that, and the activations that losses read."""
        head, readings = head_of(model), self.readings
        options = {"use_cache": False} if model.can_generate() else {}
        with tracing(model, readings) as trace:
            if head is None:
                hidden: Tensor = model.base_model(**inputs, **options).last_hidden_state
                return hidden, trace
            with withheld(head):
                hidden = model(**inputs, **options).logits
        return hidden, trace

    def _of_logits(self, hidden: Float[Tensor, "tokens dim"], answers: _Answers) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted sum of the losses of logits, and each of them."""
        losses = self.logit_losses
        if not losses:
            return hidden.new_zeros(()), {}
        if all(loss.labeled for loss in losses.values()):  # a masked language model labels one token in seven
            chosen = (answers.labels != IGNORED).nonzero()[:, 0]
            hidden, answers = hidden[chosen], answers.at(chosen)
        head = head_of(self.student)
        assert head is not None
        vocabulary = int(self.student.config.get_text_config().vocab_size)
        score = _Score(losses, answers, head_of(self.teacher) if self.teacher is not None else None)
        weighted, *each = through_head(hidden, head, score, vocabulary=vocabulary)
        return weighted, dict(zip(losses, each, strict=True))

    def _of_layers(self, ours: Trace, theirs: Trace, *, seen: Bool[Tensor, "batch tokens"]) -> dict[str, Tensor]:
        maps = dict(self.projections.items())
        losses = self.layer_losses.items()
        return {name: loss(ours, theirs, seen=seen, projection=maps.get(_key(name))) for name, loss in losses}


def _key(label: str) -> str:
    """Return a label as the name of a module."""
    return "of_" + label.replace(".", "_")


def head_of(model: PreTrainedModel) -> nn.Module | None:
    """Return the output embedding, or None in a model without a language-model head."""
    path = layout(model).family.head
    return model.get_submodule(path) if has_module(model, path) else None


@dataclass(frozen=True)
class _Answers:
    """What the tokens of a batch are compared with, all with the tokens first."""

    labels: Int[Tensor, " tokens"]
    seen: Bool[Tensor, " tokens"]
    hidden: Float[Tensor, "tokens dim"] | None = None
    top: Top | None = None

    def at(self, places: Int[Tensor, " some"] | slice) -> _Answers:
        """Return those of some tokens."""
        top = (
            None
            if self.top is None
            else replace(self.top, words=self.top.words[places], log_probabilities=self.top.log_probabilities[places])
        )
        hidden = None if self.hidden is None else self.hidden[places]
        return _Answers(self.labels[places], self.seen[places], hidden, top)


class _Score:
    """Says what losses of logits make of a chunk of tokens."""

    def __init__(self, losses: Mapping[str, LogitLoss], answers: _Answers, teacher_head: nn.Module | None) -> None:
        self.losses, self.answers, self.teacher_head = losses, answers, teacher_head
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
        for index, (loss, share) in enumerate(zip(self.losses.values(), shares, strict=True)):
            value, gradient = loss.per_token(student, teacher, labels)
            totals[1 + index] += torch.dot(value, share)
            gradients.append(gradient.mul_(loss.weight * share[:, None]))
        return gradients[0] if len(gradients) == 1 else torch.stack(gradients).sum(dim=0)
