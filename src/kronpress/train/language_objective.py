"""What a language model is trained on: its own losses, and those between it and its teacher."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor, nn

from kronpress.activations.head import head_of
from kronpress.activations.trace import Trace
from kronpress.families import vocabulary_size
from kronpress.precision import mixed_precision
from kronpress.teacher.live import before_head, look_at
from kronpress.train.objective import Objective, StudentHead, Targets


class Distillation(Objective):
    """The weighted sum of losses of a language model, token by token.

    Of models whose tables were padded to different sizes behind the tokens of the same tokenizer, losses compare the
    logits that both have. Matrix products run in the number format that was chosen, the teacher's weights being kept
    in it; the student's weights and all losses are in fp32.
    """

    def forward(
        self,
        input_ids: Int[Tensor, "batch tokens"],
        labels: Int[Tensor, "batch tokens"],
        attention_mask: Int[Tensor, "batch tokens"] | None = None,
        **others: Tensor,
    ) -> dict[str, Tensor]:
        """Return the loss of a batch in nats per token.

        Args:
            input_ids: what both models read.
            labels: the id to be predicted at each place, -100 for none.
            attention_mask: 0 at padding.
            others: what the models read besides, such as `token_type_ids`, and what a stored teacher said.
        """
        batch = {"input_ids": input_ids, "attention_mask": attention_mask, **others}
        seen = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        with mixed_precision(input_ids.device):
            predictions, theirs = (None, Trace()) if self.teacher is None else self.teacher.look(batch)
            ours, trace = look_at(self.student, before_head, batch, readings=self.readings)
            targets = Targets(labels.flatten(), seen.flatten(), predictions)
            total, values = self.of_logits(ours.hidden, targets, head=self._head())
        return self.sum_of(values | self.of_layers(trace, theirs, seen=seen), already=total)

    def _head(self) -> StudentHead:
        ours, head = vocabulary_size(self.student), head_of(self.student)
        common = ours if self.teacher is None else min(ours, self.teacher.offer.vocabulary)
        return StudentHead(head or nn.Identity(), ours, common)
