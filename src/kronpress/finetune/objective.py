"""What a model is trained on for a task: the task's own loss, and those between it and a fine-tuned teacher."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from kronpress.activations.trace import Trace, tracing
from kronpress.losses import IGNORED
from kronpress.precision import mixed_precision
from kronpress.tasks import outputs_of
from kronpress.train.objective import Answers, Heads, Objective

_NOWHERE = -1e4  # logit of a token that is padding: none in probability, and still a number


class TaskDistillation(Objective):
    """The weighted sum of losses of a model with a task's head, example by example.

    Losses of logits see the classes of a classification, or the tokens that an answer may start and end at; in a
    regression they become squared errors, to the label where a loss reads labels and to the teacher where it compares.
    Losses between layers see all tokens but padding, as in a language model.
    """

    def forward(
        self,
        labels: Float[Tensor, "batch n"],
        teacher_outputs: Tensor | None = None,
        teacher_states: Float[Tensor, "batch tokens activations dim"] | None = None,
        **inputs: Tensor,
    ) -> dict[str, Tensor]:
        """Return the loss of a batch.

        Args:
            labels: the class, the number, or the first and last token of the answer.
            teacher_outputs: what the teacher's head gives, where it need not be run.
            teacher_states: what it computes inside, where that is known too.
            inputs: `input_ids`, `attention_mask` and whatever else the model reads.
        """
        seen = inputs["attention_mask"].bool()
        wanted = teacher_outputs
        theirs = Trace() if teacher_states is None else Trace.of(teacher_states, self.readings)
        with mixed_precision(seen.device):
            if self.teacher is not None and teacher_outputs is None:
                with torch.no_grad():
                    wanted, theirs = self._look(self.teacher, inputs)
            found, ours = self._look(self.student, inputs)
        layers = self.of_layers(ours, theirs, seen=seen)
        with torch.autocast(seen.device.type, enabled=False):
            if self.student.config.problem_type == "regression":
                return self.sum_of(self._squared(found.float(), labels, wanted) | layers)
            logits = _rows(found, seen)
            answers = Answers(
                labels.long().flatten(),
                torch.ones(len(logits), dtype=torch.bool, device=logits.device),
                hidden=None if wanted is None else _rows(wanted, seen),
            )
            heads = Heads(nn.Identity(), None if wanted is None else nn.Identity(), logits.shape[1], logits.shape[1])
            total, values = self.of_logits(logits, answers, heads=heads)
            return self.sum_of(values | layers, already=total)

    def _look(self, model: PreTrainedModel, inputs: dict[str, Any]) -> tuple[Tensor, Trace]:
        with tracing(model, self.readings) as trace:
            outputs = outputs_of(model, inputs)
        return outputs, trace

    def _squared(self, found: Tensor, labels: Tensor, wanted: Tensor | None) -> dict[str, Tensor]:
        values = {}
        for name, loss in self.logit_losses.items():
            aim = wanted.float() if loss.compares and wanted is not None else labels
            known = torch.ones_like(labels) if loss.compares else (labels != IGNORED).float()
            squares = (found - aim.reshape(found.shape)).square() * known.reshape(found.shape)
            values[name] = squares.sum() / known.sum().clamp_min(1)
        return values


def _rows(outputs: Float[Tensor, "batch *outputs"], seen: Bool[Tensor, "batch tokens"]) -> Float[Tensor, "rows events"]:
    """Return one row of logits for each thing to be chosen: the class, or where the answer starts and where it ends."""
    logits = outputs.float()
    if logits.dim() == 2:
        return logits
    return logits.masked_fill(~seen[:, None, :], _NOWHERE).flatten(0, 1)
