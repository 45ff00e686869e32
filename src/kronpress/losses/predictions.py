"""What a model predicts for some tokens: all logits, or the most likely words only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

_SMALLEST = -80.0  # log-probability that stands for none; its exponential is still a number in fp32


@dataclass(frozen=True)
class Top:
    """A distribution over the k likeliest words of each token and the rest taken together.

    Attributes:
        words: (tokens, k).
        log_probabilities: (tokens, k + 1), of the words and, last, of all others together.
        temperature: what the logits were divided by.
    """

    words: Int[Tensor, "tokens k"]
    log_probabilities: Float[Tensor, "tokens events"]
    temperature: float = 1.0

    def top(self, k: int, *, temperature: float) -> Top:
        """Return the k likeliest words, joining the others with the rest.

        Raises:
            ValueError: more words, or another temperature, than are known.
        """
        if k > self.words.shape[1] or temperature != self.temperature:
            raise ValueError(f"known are {self.words.shape[1]} words at temperature {self.temperature}")
        rest = self.log_probabilities[:, k:].logsumexp(dim=1, keepdim=True)
        return Top(self.words[:, :k], torch.cat([self.log_probabilities[:, :k], rest], dim=1), temperature)


@dataclass(frozen=True)
class Predictions:
    """The logits of some tokens, (tokens, vocabulary) in fp32, and what follows from them, computed once."""

    logits: Float[Tensor, "tokens vocabulary"]
    _known: dict[float, Tensor] = field(default_factory=dict, repr=False)

    def log_probabilities(self, temperature: float = 1.0) -> Float[Tensor, "tokens vocabulary"]:
        """Return log softmax(logits / temperature)."""
        if temperature not in self._known:
            scaled = self.logits if temperature == 1 else self.logits / temperature
            self._known[temperature] = torch.log_softmax(scaled, dim=-1)
        return self._known[temperature]

    def top(self, k: int, *, temperature: float) -> Top:
        """Return the distribution over the k likeliest words and the rest."""
        words = self.logits.topk(min(k, self.logits.shape[1]), dim=1).indices
        return Top(words, self.over(words, temperature=temperature), temperature)

    def over(self, words: Int[Tensor, "tokens k"], *, temperature: float) -> Float[Tensor, "tokens events"]:
        """Return the log-probabilities of `words` and, last, of all others together."""
        every = self.log_probabilities(temperature)
        rest = every.scatter(1, words, -torch.inf).logsumexp(dim=1, keepdim=True)
        return torch.cat([every.gather(1, words), rest], dim=1).clamp_min(_SMALLEST)


Teacher: TypeAlias = Predictions | Top
