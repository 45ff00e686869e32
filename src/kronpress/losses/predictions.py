"""What a model predicts for some tokens: all logits, or the likeliest next tokens only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

_SMALLEST = -80.0  # log-probability that stands for none; its exponential is still a number in fp32


@dataclass(frozen=True)
class Top:
    """For each token, a distribution over the k likeliest ids and all others taken together.

    Attributes:
        ids: the likeliest first, (tokens, k).
        log_probabilities: (tokens, k + 1), of the ids and, last, of all others together.
        temperature: what the logits were divided by.
    """

    ids: Int[Tensor, "tokens k"]
    log_probabilities: Float[Tensor, "tokens events"]
    temperature: float = 1.0

    def at(self, places: Int[Tensor, " some"] | slice) -> Top:
        """Return the distributions of some tokens."""
        return Top(self.ids[places], self.log_probabilities[places], self.temperature)

    def within(self, vocabulary: int) -> Top:
        """Return the distributions as they are: they are over the ids that both models know."""
        return self

    def top(self, k: int, *, temperature: float) -> Top:
        """Return the k likeliest ids, joining the others with the rest.

        Raises:
            ValueError: more ids than are stored, or another temperature.
        """
        if k > self.ids.shape[1] or temperature != self.temperature:
            raise ValueError(f"only the {self.ids.shape[1]} likeliest ids at temperature {self.temperature} are stored")
        rest = self.log_probabilities[:, k:].logsumexp(dim=1, keepdim=True)
        return Top(self.ids[:, :k], torch.cat([self.log_probabilities[:, :k], rest], dim=1), temperature)


@dataclass(frozen=True)
class Predictions:
    """The logits of some tokens, (tokens, vocabulary), and what follows from them, computed once."""

    logits: Float[Tensor, "tokens vocabulary"]
    _computed: dict[float, Tensor] = field(default_factory=dict, repr=False)

    def at(self, places: Int[Tensor, " some"] | slice) -> Predictions:
        """Return the predictions for some tokens, in fp32."""
        return Predictions(self.logits[places].float())

    def within(self, vocabulary: int) -> Predictions:
        """Return the predictions over the first ids alone."""
        return self if vocabulary == self.logits.shape[1] else Predictions(self.logits[:, :vocabulary])

    def log_probabilities(self, temperature: float = 1.0) -> Float[Tensor, "tokens vocabulary"]:
        """Return log softmax(logits / temperature)."""
        if temperature not in self._computed:
            scaled = self.logits if temperature == 1 else self.logits / temperature
            self._computed[temperature] = torch.log_softmax(scaled, dim=-1)
        return self._computed[temperature]

    def top(self, k: int, *, temperature: float) -> Top:
        """Return the distribution over the k likeliest ids and the rest."""
        ids = self.logits.topk(min(k, self.logits.shape[1]), dim=1).indices
        return Top(ids, self.over(ids, temperature=temperature), temperature)

    def over(self, ids: Int[Tensor, "tokens k"], *, temperature: float) -> Float[Tensor, "tokens events"]:
        """Return the log-probabilities of `ids` and, last, of all others together."""
        every = self.log_probabilities(temperature)
        rest = every.scatter(1, ids, -torch.inf).logsumexp(dim=1, keepdim=True)
        return torch.cat([every.gather(1, ids), rest], dim=1).clamp_min(_SMALLEST)


TeacherPredictions: TypeAlias = Predictions | Top
"""What a loss may be given of a teacher: all its logits, or its likeliest ids."""
