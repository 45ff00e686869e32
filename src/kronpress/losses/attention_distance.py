"""How far the student's attention is from the teacher's."""

from __future__ import annotations

from typing import ClassVar, Literal

from jaxtyping import Bool, Float
from torch import Tensor

from kronpress.activations.attention import Attention
from kronpress.losses.loss import LOSSES
from kronpress.losses.relations import AttentionLoss, both_see, divergence, scores_of
from kronpress.losses.states import mean_of


@LOSSES.enroll
class AttentionDistance(AttentionLoss):
    """The mean over pairs of layers, heads and queries of a distance between attentions, over visible keys only.

    The papers add up layers: `reduction: sum`.

    Attributes:
        of: `probabilities` is KL(teacher ‖ student) of how attention is spread over the keys (KnGPT2, Edalati et al.,
            2022); `scores` is the mean over a query's keys of the squared difference of q·k/√d, before the softmax
            (KroneckerBERT, Tahaei et al., 2022; BinaryBERT, Bai et al., 2021).
    """

    kind: ClassVar[str] = "attention"
    of: Literal["probabilities", "scores"] = "probabilities"

    def between(
        self, student: Attention, teacher: Attention, *, seen: Bool[Tensor, "batch tokens"]
    ) -> Float[Tensor, ""]:
        """Return the mean distance between two layers."""
        ours, theirs, visible = scores_of(student), scores_of(teacher), both_see(student, teacher)
        if self.of == "probabilities":
            return divergence(ours, theirs, visible=visible, seen=seen)
        squares = (ours - theirs).masked_fill(~visible, 0).square()
        per_query = squares.mean(dim=1).sum(dim=-1) / visible[:, 0].sum(dim=-1).clamp_min(1)
        return mean_of(per_query[seen])
