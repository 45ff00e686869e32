"""Uniform quantization between the smallest and the largest number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

from torch import Tensor

from kronpress.layers import Coded, Grid, Groups, Learned
from kronpress.layers.grid import Levels
from kronpress.quantizers.quantizer import QUANTIZERS, Quantizer, Slope, within


@QUANTIZERS.enroll
class MinMax(Quantizer):
    """Levels in equal steps from min w to max w of the group, at every call (Jacob et al., 2018, section 3).

    s = (max w - min w)/(2ᵇ - 1) and s · round((w - min w)/s) + min w, as in the released codes of TernaryBERT and
    BinaryBERT. Gradients pass straight through; the range counts as a constant.
    """

    kind: ClassVar[str] = "minmax"
    shifted: ClassVar[Sequence[Levels]] = ("uint8", "uint4", "uint3", "uint2")
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


def spanning(latent: Groups, grid: Grid) -> Coded:
    """Return the nearest codes on the grid that reaches all numbers of each group."""
    scale, shift = grid.span(latent)
    return Coded(grid.codes(latent, scale, shift), scale, shift)
