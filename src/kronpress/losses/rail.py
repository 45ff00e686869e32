"""Distillation from randomly chosen layers."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kronpress.activations.trace import Reading, Trace
from kronpress.errors import KronpressError
from kronpress.losses.loss import LOSSES
from kronpress.losses.states import Reduction, StateLoss, States, apart, mean_of, over_pairs


@LOSSES.enroll
class RandomLayers(StateLoss):
    """RAIL-KD (Haidar et al., 2021): sentences as the student's blocks see them, against randomly drawn teacher blocks.

    For each pass as many of the teacher's blocks are drawn as the student has, without replacement, and paired in
    order; the paper draws for each epoch. A sentence is the mean of its tokens that are not padding, through the linear
    map where `project`. The draw comes from torch's own random numbers on the CPU, so that a resumed training repeats
    it.

    Attributes:
        mode: `layerwise` is the mean over pairs, and over sentences, of ‖s/‖s‖ - t/‖t‖‖²; `concatenated` that distance
            between the vectors of all blocks put together.
        reduction: `layerwise`, `mean` over the pairs of blocks, or their `sum`.
    """

    kind: ClassVar[str] = "rail"
    mode: Literal["layerwise", "concatenated"] = "layerwise"
    reduction: Reduction = "mean"

    @property
    def reads(self) -> frozenset[Reading]:
        """Which activations it needs."""
        return frozenset({"blocks"})

    def pairs(self, student: int, teacher: int) -> list[tuple[int, int]]:
        """Draw the teacher's blocks and return the pairs."""
        if student > teacher:
            raise KronpressError(
                f"the loss 'rail' draws one of the teacher's blocks for each of the student's, but the student has "
                f"{student} and the teacher {teacher}; use hidden or pkd with layers: uniform"
            )
        return list(enumerate(torch.randperm(teacher)[:student].sort().values.tolist()))

    def layers_of(self, trace: Trace) -> list[Float[Tensor, "batch tokens dim"]]:
        """Return what the blocks gave."""
        return trace.blocks

    def between(self, states: States, *, seen: Bool[Tensor, "batch tokens"]) -> Float[Tensor, ""]:
        """Return the mean squared distance."""
        sentences = [(_pooled(s, seen=seen), _pooled(t, seen=seen)) for s, t in states]
        if self.mode == "concatenated":
            ours, theirs = zip(*sentences, strict=True)
            sentences = [(torch.cat(ours, dim=-1), torch.cat(theirs, dim=-1))]
        return over_pairs([mean_of(apart(s, t)) for s, t in sentences], self.reduction)


def _pooled(
    states: Float[Tensor, "batch tokens dim"], *, seen: Bool[Tensor, "batch tokens"]
) -> Float[Tensor, "some dim"]:
    """Return the mean of the seen tokens of each sentence that has any."""
    some = seen.any(dim=1)
    kept = states[some].masked_fill(~seen[some][..., None], 0)
    return kept.sum(dim=1) / seen[some].sum(dim=1, keepdim=True)
