"""Binary weight networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from kronpress.layers import Coded, Grid, Groups, Learned
from kronpress.layers.grid import Levels
from kronpress.quantizers.quantizer import QUANTIZERS, Quantizer, Slope, mean_size, within


@QUANTIZERS.enroll
class BinaryWeights(Quantizer):
    """α · sign(w), with α = ‖w‖₁/n of the group (Rastegari et al., 2016, XNOR-Net, equation 6).

    Gradients pass straight through, but for numbers beyond the clip range, as in the released codes of TernaryBERT and
    BinaryBERT. Zero counts as negative.

    Attributes:
        clip: numbers of at least this size get no gradient; null for none.
    """

    kind: ClassVar[str] = "bwn"
    keeps: ClassVar[Sequence[Levels]] = ("binary",)
    symmetric: ClassVar[Sequence[Levels]] = ("binary",)
    inputs: ClassVar[Literal["dynamic", "stored"] | None] = "dynamic"
    clip: float | None = Field(default=2.5, gt=0)

    def starts(self, latent: Groups, grid: Grid, start: Coded | None) -> dict[str, Tensor]:
        """Return nothing: all follows from the latent numbers."""
        return {}

    def codes(self, latent: Groups, grid: Grid, learned: Learned) -> Coded:
        """Return the signs and the mean sizes."""
        scale = grid.rounded(mean_size(latent))
        return Coded((latent > 0).int(), scale)

    def slopes(self, latent: Groups, grid: Grid, learned: Learned, *, coded: Coded) -> Iterator[Slope]:
        """Give 1 inside of the clip range."""
        yield latent, within(latent, self.clip)
