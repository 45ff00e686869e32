"""What a model is trained on for a task: the task's own loss, and those between it and a fine-tuned teacher."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kronpress.activations.trace import Trace
from kronpress.losses import IGNORED, Predictions
from kronpress.precision import mixed_precision
from kronpress.teacher.live import look_at, task_outputs
from kronpress.train.objective import Objective, StudentHead, Targets

_NOWHERE = -1e4  # logit of a token that is padding: none in probability, and still a number


class TaskDistillation(Objective):
    """The weighted sum of losses of a model with a task's head, example by example.

    Losses of logits see the classes of a classification, or the tokens that an answer may start and end at; in a
    regression they become squared errors, to the label where a loss reads labels and to the teacher where it compares.
    Losses between layers see all tokens but padding, as in a language model.
    """

    def forward(self, labels: Float[Tensor, "batch n"], **inputs: Tensor) -> dict[str, Tensor]:
        """Return the loss of a batch.

        Args:
            labels: the class, the number, or the first and last token of the answer.
            inputs: `input_ids`, `attention_mask` and whatever else the model reads, and what a stored teacher said.
        """
        seen = inputs["attention_mask"].bool()
        with mixed_precision(seen.device):
            wanted, theirs = (None, Trace()) if self.teacher is None else self.teacher.look(inputs)
            outputs, ours = look_at(self.student, task_outputs, inputs, readings=self.readings)
        layers = self.of_layers(ours, theirs, seen=seen)
        with torch.autocast(seen.device.type, enabled=False):
            if self.student.config.problem_type == "regression":
                return self.sum_of(self._squared(outputs.float(), labels, wanted) | layers)
            logits = _rows(outputs, seen)
            targets = Targets(
                labels.long().flatten(),
                torch.ones(len(logits), dtype=torch.bool, device=logits.device),
                None if wanted is None else Predictions(_rows(wanted, seen)),
            )
            head = StudentHead(nn.Identity(), logits.shape[1], logits.shape[1])
            total, values = self.of_logits(logits, targets, head=head)
            return self.sum_of(values | layers, already=total)

    def _squared(self, outputs: Tensor, labels: Tensor, wanted: Tensor | None) -> dict[str, Tensor]:
        values = {}
        for name, loss in self.logit_losses.items():
            aim = wanted.float() if loss.compares and wanted is not None else labels
            counted = torch.ones_like(labels) if loss.compares else (labels != IGNORED).float()
            squares = (outputs - aim.reshape(outputs.shape)).square() * counted.reshape(outputs.shape)
            values[name] = squares.sum() / counted.sum().clamp_min(1)
        return values


def _rows(outputs: Float[Tensor, "batch *outputs"], seen: Bool[Tensor, "batch tokens"]) -> Float[Tensor, "rows events"]:
    """Return one row of logits for each thing to be chosen: the class, or where the answer starts and where it ends."""
    logits = outputs.float()
    if logits.dim() == 2:
        return logits
    return logits.masked_fill(~seen[:, None, :], _NOWHERE).flatten(0, 1)
