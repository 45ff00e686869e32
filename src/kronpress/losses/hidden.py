"""How far what the student's layers give is from what the teacher's give."""

from __future__ import annotations

from typing import ClassVar, Literal, TypeAlias

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from kronpress.activations.trace import Reading, Trace
from kronpress.losses.layer_map import LayerMap, pairs_of
from kronpress.losses.loss import LOSSES
from kronpress.losses.states import Reduction, StateLoss, States, mean_of, over_pairs

Metric: TypeAlias = Literal["mse", "cosine", "relative"]
"""For each token, of s and t with d numbers: ‖s - t‖²/d, 1 - cos(s, t), or ‖s - t‖²/‖t‖²."""

_SMALLEST = 1e-12  # stands for the squared length of a teacher's vector that is zero


@LOSSES.enroll
class HiddenDistance(StateLoss):
    """The mean over pairs of layers (or their sum), and over tokens, of the distance between their vectors.

    With `of: feed_forwards` it is L_ffn of KroneckerBERT (Tahaei et al., 2022), with `blocks` our reading of L_hid of
    KnGPT2 (Edalati et al., 2022), where these add up layers; `cosine` of the last blocks is that of DistilBERT (Sanh et
    al., 2019). `relative` is ours: the first tokens of a decoder have vectors hundreds of times longer than others,
    which `mse` looks at only.

    Attributes:
        of: what leaves the `blocks`, or their `feed_forwards` before these are added to the block's input.
        metric: how a student's vector s is compared with the teacher's t: ‖s - t‖²/d (`mse`), 1 - cos(s, t)
            (`cosine`), or ‖s - t‖²/‖t‖² (`relative`).
        layers: which block learns from which.
        reduction: `mean` over the pairs of layers, or their `sum`.
    """

    kind: ClassVar[str] = "hidden"
    of: Literal["blocks", "feed_forwards"] = "blocks"
    metric: Metric = "mse"
    layers: LayerMap = "same"
    reduction: Reduction = "mean"

    @property
    def reads(self) -> frozenset[Reading]:
        """Which activations it needs."""
        return frozenset({self.of})

    def pairs(self, student: int, teacher: int) -> list[tuple[int, int]]:
        """Return the pairs of blocks."""
        return pairs_of(self.layers, student, teacher, loss=self.kind)

    def layers_of(self, trace: Trace) -> list[Float[Tensor, "batch tokens dim"]]:
        """Return what the blocks or feed-forwards gave."""
        return trace.blocks if self.of == "blocks" else trace.feed_forwards

    def between(self, states: States, *, seen: Bool[Tensor, "batch tokens"]) -> Float[Tensor, ""]:
        """Return the mean distance, of the pairs together."""
        return over_pairs([mean_of(distance(self.metric, s[seen], t[seen])) for s, t in states], self.reduction)


def distance(
    metric: Metric, student: Float[Tensor, "tokens dim"], teacher: Float[Tensor, "tokens dim"]
) -> Float[Tensor, " tokens"]:
    """Return how far each token's vectors are apart."""
    if metric == "cosine":
        return 1 - F.cosine_similarity(student, teacher, dim=-1)
    squares = (student - teacher).square()
    if metric == "mse":
        return squares.mean(dim=-1)
    return squares.sum(dim=-1) / teacher.square().sum(dim=-1).clamp_min(_SMALLEST)
