"""How good a shortened model is, on text that it was not trained on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from kronpress.activations.head import head_of
from kronpress.activations.stream import batch_size
from kronpress.families import is_causal
from kronpress.precision import mixed_precision
from kronpress.teacher.live import before_head


@dataclass(frozen=True)
class Judge:
    """Says what a model loses on a text: a decoder in nats per token, any other in 1 - cosine of its last states.

    Attributes:
        windows: the text.
        states: what the whole model's last states are, where no next token is predicted.
    """

    windows: Int[Tensor, "windows tokens"]
    states: tuple[Float[Tensor, "batch dim"], ...] = ()

    @classmethod
    def of(cls, model: PreTrainedModel, windows: Int[Tensor, "windows tokens"]) -> Judge:
        """Return the judge of what is made of a model."""
        if _predicts(model):
            return cls(windows)
        blind = cls(windows)
        return cls(windows, tuple(blind._last(model, batch) for batch in blind._batches(model)))

    @property
    def measure(self) -> str:
        """What `loss` returns, in a few words."""
        return "1 - cosine of the last states" if self.states else "loss, nats per token"

    @torch.no_grad()
    def loss(self, model: PreTrainedModel) -> float:
        """Return the mean loss of a token."""
        batches = self._batches(model)
        if self.states:
            likeness = [
                F.cosine_similarity(self._last(model, batch), states, dim=-1)
                for batch, states in zip(batches, self.states, strict=True)
            ]
            return 1 - float(torch.cat(likeness).mean())
        total = sum(self._missed(model, batch) for batch in batches)
        return total / (len(self.windows) * (self.windows.shape[1] - 1))

    def _batches(self, model: PreTrainedModel) -> tuple[Int[Tensor, "batch tokens"], ...]:
        batches: tuple[Tensor, ...] = self.windows.to(model.device).split(batch_size(*self.windows.shape))
        return batches

    def _missed(self, model: PreTrainedModel, batch: Int[Tensor, "batch tokens"]) -> float:
        """Return the summed loss of a batch, window by window: the logits of all would be large."""
        head, total = head_of(model), 0.0
        assert head is not None
        states = self._last(model, batch).view(*batch.shape, -1)
        for ids, hidden in zip(batch, states, strict=True):
            with mixed_precision(model.device):
                logits = head(hidden[:-1])
            total += float(F.cross_entropy(logits.float(), ids[1:], reduction="sum"))
        return total

    @torch.no_grad()
    def _last(self, model: PreTrainedModel, batch: Int[Tensor, "batch tokens"]) -> Float[Tensor, "rows dim"]:
        with mixed_precision(model.device):
            return before_head(model, {"input_ids": batch}).hidden.float()


def _predicts(model: PreTrainedModel) -> bool:
    """Say whether the model predicts the next token."""
    return is_causal(model) and head_of(model) is not None
