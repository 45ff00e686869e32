"""How alike the queries, keys and values of tokens are."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kronpress.activations.attention import Attention
from kronpress.losses.loss import LOSSES
from kronpress.losses.relations import AttentionLoss, of_each_head
from kronpress.losses.states import mean_of

_SMALLEST = 1e-20


@LOSSES.enroll
class DirectionMatching(AttentionLoss):
    """‖P - P'‖_F² of P = F Fᵀ/‖F Fᵀ‖_F in student and teacher, for F the queries, the keys and the values.

    Direction-matching distillation of BiBERT (Qin et al., 2022). The squares are added over the entries of P, so that
    the distance lies between 0 and 2 whatever the number of tokens; then the mean over queries, keys and values, heads,
    sentences and pairs of layers is taken. Tokens that are padding have no part in P. It is formed without P, as
    2 - 2‖Fᵀ F'‖²/(‖Fᵀ F‖ ‖F'ᵀ F'‖).
    """

    kind: ClassVar[str] = "directions"

    def between(
        self, student: Attention, teacher: Attention, *, seen: Bool[Tensor, "batch tokens"]
    ) -> Float[Tensor, ""]:
        """Return the mean distance between two layers."""
        ours, theirs = _normalized(student, seen=seen), _normalized(teacher, seen=seen)
        alike = _gram(ours, theirs).square() / (_gram(ours, ours) * _gram(theirs, theirs)).clamp_min(_SMALLEST)
        return mean_of((2 - 2 * alike).mean(dim=(0, 2))[seen.any(dim=1)])


def _normalized(
    attention: Attention, *, seen: Bool[Tensor, "batch tokens"]
) -> Float[Tensor, "kinds batch heads tokens d"]:
    """Return queries, keys and values of seen tokens, each head's brought to size 1, which does not matter to P."""
    heads = attention.query.shape[1]
    every = torch.stack([of_each_head(states, heads) for states in (attention.query, attention.key, attention.value)])
    every = every.masked_fill(~seen[:, None, :, None], 0)
    size: Tensor = torch.linalg.matrix_norm(every.detach(), keepdim=True)
    return every / size.clamp_min(_SMALLEST)


def _gram(first: Float[Tensor, "*some tokens d"], second: Float[Tensor, "*some tokens e"]) -> Float[Tensor, "*some"]:
    """Return ‖Fᵀ F'‖_F."""
    norm: Tensor = torch.linalg.matrix_norm(first.transpose(-1, -2) @ second)
    return norm
