"""What losses between attentions have in common."""

from __future__ import annotations

from abc import abstractmethod
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from kronpress.activations.attention import Attention
from kronpress.activations.trace import Reading, Sizes, Trace
from kronpress.errors import KronpressError
from kronpress.losses.layer_map import LayerMap, pairs_of
from kronpress.losses.loss import LayerLoss
from kronpress.losses.states import Reduction, mean_of, over_pairs

_LOWEST = torch.finfo(torch.float32).min / 2  # the score of a key that cannot be seen


class AttentionLoss(LayerLoss):
    """A loss between what attention layers work on; the mean over pairs of layers, or their sum.

    What it computes for one pair, of the size tokens × tokens, is computed again in the backward pass and not kept.

    Attributes:
        layers: which block learns from which.
        reduction: `mean` over the pairs of layers, or their `sum`.
    """

    layers: LayerMap = "same"
    reduction: Reduction = "mean"

    @property
    def reads(self) -> frozenset[Reading]:
        """Which activations it needs."""
        return frozenset({"attentions"})

    @abstractmethod
    def between(
        self, student: Attention, teacher: Attention, *, seen: Bool[Tensor, "batch tokens"]
    ) -> Float[Tensor, ""]:
        """Return the loss of one pair of layers."""

    def projection(self, student: Sizes, teacher: Sizes) -> nn.Module | None:
        """Return None: nothing is learned along.

        Raises:
            KronpressError: other depths than the layers are for, or another number of heads.
        """
        pairs_of(self.layers, student.depth, teacher.depth, loss=self.kind)
        if student.heads != teacher.heads:
            raise KronpressError(
                f"the loss '{self.kind}' compares head with head, but the student has {student.heads} and the teacher "
                f"{teacher.heads}; use the loss minilm with relation_heads, which forms heads anew"
            )
        return None

    def __call__(
        self, student: Trace, teacher: Trace, *, seen: Bool[Tensor, "batch tokens"], projection: nn.Module | None
    ) -> Float[Tensor, ""]:
        """Return the mean or the sum over the pairs."""
        ours, theirs = student.attentions, teacher.attentions
        if not ours or not theirs:
            raise ValueError(f"the loss '{self.kind}' saw no attention; run the models inside of training_attention")
        pairs = pairs_of(self.layers, len(ours), len(theirs), loss=self.kind)
        again = partial(checkpoint, self.between, seen=seen, use_reentrant=False, preserve_rng_state=False)
        return over_pairs([again(ours[i], theirs[j]) for i, j in pairs], self.reduction)


def of_each_head(states: Float[Tensor, "batch groups tokens d"], heads: int) -> Float[Tensor, "batch {heads} tokens d"]:
    """Return keys or values in fp32, repeated for the heads that share them."""
    return states.float().repeat_interleave(heads // states.shape[1], dim=1)


def scores_of(attention: Attention) -> Float[Tensor, "batch heads tokens tokens"]:
    """Return the products of queries and keys before the softmax, also where a key cannot be seen."""
    keys = of_each_head(attention.key, attention.query.shape[1])
    return attention.query.float() @ keys.transpose(2, 3) * attention.scaling


def divergence(
    student: Float[Tensor, "batch heads tokens tokens"],
    teacher: Float[Tensor, "batch heads tokens tokens"],
    *,
    visible: Bool[Tensor, "_ 1 tokens tokens"],
    seen: Bool[Tensor, "batch tokens"],
) -> Float[Tensor, ""]:
    """Return the mean over heads and seen queries of KL(softmax teacher ‖ softmax student) over visible keys."""
    ours, theirs = (scores.masked_fill(~visible, _LOWEST).log_softmax(dim=-1) for scores in (student, teacher))
    terms = theirs.exp() * (theirs - ours)  # 0 at what is hidden, where the difference is still a number
    return mean_of(terms.sum(dim=-1).mean(dim=1)[seen])


def both_see(student: Attention, teacher: Attention) -> Bool[Tensor, "_ 1 tokens tokens"]:
    """Return which keys a query may look at in both models."""
    return student.visible & teacher.visible
