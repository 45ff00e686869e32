"""Uniform quantization up to the largest absolute number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

from torch import Tensor

from kronpress.layers import Coded, Grid, Groups, Learned
from kronpress.layers.grid import Levels
from kronpress.quantizers.minmax import spanning
from kronpress.quantizers.quantizer import QUANTIZERS, Quantizer, Slope, within


@QUANTIZERS.enroll
class MaxAbs(Quantizer):
    """Levels in equal steps up to max |w| of the group, at every call (Zafrir et al., 2019, Q8BERT).

    s = max |w| / (2ᵇ⁻¹ - 1) and s · round(w/s). Gradients pass straight through; the range counts as a constant.
    """

    kind: ClassVar[str] = "maxabs"
    symmetric: ClassVar[Sequence[Levels]] = ("int8", "int4", "int3", "int2", "ternary")
    inputs: ClassVar[Literal["dynamic", "stored"] | None] = "dynamic"

    def starts(self, latent: Groups, grid: Grid, start: Coded | None) -> dict[str, Tensor]:
        """Return nothing: all follows from the latent numbers."""
        return {}

    def codes(self, latent: Groups, grid: Grid, learned: Learned) -> Coded:
        """Return the nearest codes on the grid that spans the numbers."""
        return spanning(latent, grid)

    def slopes(self, latent: Groups, grid: Grid, learned: Learned, *, coded: Coded) -> Iterator[Slope]:
        """Give 1 for all numbers."""
        yield latent, within(latent, None)
