"""Patient distillation."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Bool, Float
from torch import Tensor

from kronpress.activations.trace import Reading, Trace
from kronpress.losses.layer_map import LayerMap, pairs_of
from kronpress.losses.loss import LOSSES
from kronpress.losses.states import Reduction, StateLoss, States, apart, mean_of, over_pairs


@LOSSES.enroll
class PatientDistillation(StateLoss):
    """The mean over pairs of blocks, and over tokens, of ‖s/‖s‖ - t/‖t‖‖² (Sun et al., 2019, equation 7).

    The paper takes the vector of the classification token and adds up blocks, without the last; here every token that
    is not padding counts, and `layers` says which blocks do.

    Attributes:
        layers: which block learns from which.
        reduction: `mean` over the pairs of blocks, or their `sum`.
    """

    kind: ClassVar[str] = "pkd"
    layers: LayerMap = "same"
    reduction: Reduction = "mean"

    @property
    def reads(self) -> frozenset[Reading]:
        """Which activations it needs."""
        return frozenset({"blocks"})

    def pairs(self, student: int, teacher: int) -> list[tuple[int, int]]:
        """Return the pairs of blocks."""
        return pairs_of(self.layers, student, teacher, loss=self.kind)

    def layers_of(self, trace: Trace) -> list[Float[Tensor, "batch tokens dim"]]:
        """Return what the blocks gave."""
        return trace.blocks

    def between(self, states: States, *, seen: Bool[Tensor, "batch tokens"]) -> Float[Tensor, ""]:
        """Return the mean squared distance, of the pairs together."""
        return over_pairs([mean_of(apart(s[seen], t[seen])) for s, t in states], self.reduction)
