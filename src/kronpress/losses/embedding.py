"""How far what enters the student's first block is from what enters the teacher's."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Bool, Float
from torch import Tensor

from kronpress.activations.trace import Reading, Trace
from kronpress.losses.hidden import Metric, distance
from kronpress.losses.loss import LOSSES
from kronpress.losses.states import StateLoss, States, mean_of


@LOSSES.enroll
class EmbeddingDistance(StateLoss):
    """The mean over tokens of the distance between embeddings, positions and normalization included.

    L_emb of KnGPT2 (Edalati et al., 2022) and KroneckerBERT (Tahaei et al., 2022).

    Attributes:
        metric: as that of the loss `hidden`.
    """

    kind: ClassVar[str] = "embedding"
    metric: Metric = "mse"

    @property
    def reads(self) -> frozenset[Reading]:
        """Which activations it needs."""
        return frozenset({"embedding"})

    def pairs(self, student: int, teacher: int) -> list[tuple[int, int]]:
        """Return the only pair."""
        return [(0, 0)]

    def layers_of(self, trace: Trace) -> list[Float[Tensor, "batch tokens dim"]]:
        """Return what entered the first block."""
        assert trace.embedding is not None
        return [trace.embedding]

    def between(self, states: States, *, seen: Bool[Tensor, "batch tokens"]) -> Float[Tensor, ""]:
        """Return the mean distance."""
        ((student, teacher),) = states
        return mean_of(distance(self.metric, student[seen], teacher[seen]))
