"""Ternary weight networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from kronpress.layers import Coded, Grid, Groups, Learned
from kronpress.layers.grid import Levels
from kronpress.quantizers.quantizer import QUANTIZERS, Quantizer, Slope, mean_size, within

THRESHOLD = 0.7


@QUANTIZERS.enroll
class TernaryWeights(Quantizer):
    """α · sign(w) where |w| > Δ, else 0; Δ = 0.7·‖w‖₁/n, α the mean |w| of those (Li et al., 2016, section 2).

    Gradients pass straight through, but for numbers beyond the clip range, as in the released code of TernaryBERT.

    Attributes:
        threshold: Δ as a share of the mean size.
        clip: numbers of at least this size get no gradient; null for none.
    """

    kind: ClassVar[str] = "twn"
    keeps: ClassVar[Sequence[Levels]] = ("ternary",)
    symmetric: ClassVar[Sequence[Levels]] = ("ternary",)
    threshold: float = Field(default=THRESHOLD, ge=0, lt=1)
    clip: float | None = Field(default=2.5, gt=0)

    def starts(self, latent: Groups, grid: Grid, start: Coded | None) -> dict[str, Tensor]:
        """Return nothing: all follows from the latent numbers."""
        return {}

    def codes(self, latent: Groups, grid: Grid, learned: Learned) -> Coded:
        """Return which numbers are kept with which sign, and their mean size."""
        kept = latent.abs() > self.threshold * mean_size(latent)
        count = kept.sum(dim=-1, keepdim=True).clamp(min=1)
        scale = grid.rounded((latent.abs() * kept).sum(dim=-1, keepdim=True) / count)
        return Coded(((latent.sign() * kept) - grid.lowest).int(), scale)

    def slopes(self, latent: Groups, grid: Grid, learned: Learned, *, coded: Coded) -> Iterator[Slope]:
        """Give 1 inside of the clip range."""
        yield latent, within(latent, self.clip)
