"""What a language model is trained on: its own losses, and those between it and its teacher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from kronpress.activations.head import head_of, withheld
from kronpress.activations.trace import Trace, tracing
from kronpress.families import vocabulary_size
from kronpress.losses import Loss, Top
from kronpress.precision import mixed_precision
from kronpress.train.objective import Answers, Heads, Objective


class Distillation(Objective):
    """The weighted sum of losses of a language model, token by token.

    Of models whose tables were padded to different sizes behind the tokens of the same tokenizer, losses compare the
    logits that both have. Matrix products run in the number format that was chosen, the teacher's weights being kept
    in it; the student's weights and all losses are in fp32.

    Attributes:
        cached_temperature: of the predictions that batches from a teacher cache carry.
        cached_vocabulary: size of the vocabulary that these are over, by default the student's.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        teacher: PreTrainedModel | None,
        losses: Mapping[str, Loss],
        *,
        cached_temperature: float = 1.0,
        cached_vocabulary: int | None = None,
    ) -> None:
        super().__init__(student, teacher, losses)
        self.cached_temperature, self.cached_vocabulary = cached_temperature, cached_vocabulary

    def forward(
        self,
        input_ids: Int[Tensor, "batch tokens"],
        labels: Int[Tensor, "batch tokens"],
        attention_mask: Int[Tensor, "batch tokens"] | None = None,
        *,
        token_type_ids: Int[Tensor, "batch tokens"] | None = None,
        cached_words: Int[Tensor, "batch tokens k"] | None = None,
        cached_log_probabilities: Float[Tensor, "batch tokens events"] | None = None,
    ) -> dict[str, Tensor]:
        """Return the loss of a batch in nats per token.

        Args:
            input_ids: what both models read.
            labels: the word to be predicted at each place, -100 for none.
            attention_mask: 0 at padding.
            token_type_ids: the segment of each token, for encoders that tell segments apart.
            cached_words: the teacher's likeliest words in place of a teacher, from a teacher cache.
            cached_log_probabilities: of those words and, last, of all others together.
        """
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:
            inputs["token_type_ids"] = token_type_ids
        seen = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        top = None
        if cached_words is not None and cached_log_probabilities is not None:
            top = Top(cached_words.flatten(0, 1), cached_log_probabilities.flatten(0, 1), self.cached_temperature)
        answers = Answers(labels.flatten(), seen.flatten(), top=top)
        theirs = Trace()
        with mixed_precision(input_ids.device):
            if self.teacher is not None and top is None:
                with torch.no_grad():
                    wanted, theirs = self._look(self.teacher, inputs)
                answers = replace(answers, hidden=wanted.flatten(0, 1))
            hidden, ours = self._look(self.student, inputs)
            total, values = self.of_logits(hidden.flatten(0, 1), answers, heads=self._heads())
        return self.sum_of(values | self.of_layers(ours, theirs, seen=seen), already=total)

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

    def _heads(self) -> Heads:
        student = head_of(self.student) or nn.Identity()
        teacher = None if self.teacher is None else head_of(self.teacher)
        ours = vocabulary_size(self.student)
        theirs = (self.cached_vocabulary or ours) if self.teacher is None else vocabulary_size(self.teacher)
        return Heads(student, teacher, ours, min(ours, theirs))
