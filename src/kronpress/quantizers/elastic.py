"""Elastic binarization."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

from torch import Tensor

from kronpress.layers import Coded, Grid, Groups, Learned
from kronpress.layers.grid import Levels
from kronpress.quantizers.least_squares import nearest
from kronpress.quantizers.lsq import gradient_scale, learned_scales, nearest_codes
from kronpress.quantizers.quantizer import QUANTIZERS, Quantizer, Slope, levels_of


@QUANTIZERS.enroll
class Elastic(Quantizer):
    """Two levels with learned scale α and shift β (Liu et al., 2022, BiT).

    The set {0, 1} is for tensors without negative numbers: α · round(clip((x - β)/α, 0, 1)), where the gradient of α
    is the rounded minus the exact (x - β)/α inside, and 0 or 1 outside. The set {-1, 1} is for others:
    α · sign((x - β)/α), where it is the sign. Both times 1/√n, as in the released code; the numbers' gradient is 1
    where (x - β)/α lies between the ends. The grid says whether there is a β. It is added to the values again, so that
    what is stored is what was trained; the paper leaves that to the bias of the layer. So β has the paper's gradient,
    -1 inside, plus 1. Both start where squared errors are least.

    Attributes:
        set: which of the two sets `grid` takes; either is understood.
    """

    kind: ClassVar[str] = "elastic"
    keeps: ClassVar[Sequence[Levels]] = ("binary", "zero_one")
    symmetric: ClassVar[Sequence[Levels]] = ("binary", "zero_one")
    shifted: ClassVar[Sequence[Levels]] = ("binary", "zero_one")
    inputs: ClassVar[Literal["dynamic", "stored"] | None] = "stored"
    set: Literal["binary", "zero_one"] = "binary"

    def levels(self, *, shift: bool) -> Sequence[Levels]:
        """Return both sets, the own one first."""
        return ("zero_one", "binary") if self.set == "zero_one" else ("binary", "zero_one")

    def starts(self, latent: Groups, grid: Grid, start: Coded | None) -> dict[str, Tensor]:
        """Return scale and shift."""
        return learned_scales(nearest(latent, grid) if start is None else start)

    def codes(self, latent: Groups, grid: Grid, learned: Learned) -> Coded:
        """Return the nearest codes."""
        return nearest_codes(latent, grid, learned)

    def slopes(self, latent: Groups, grid: Grid, learned: Learned, *, coded: Coded) -> Iterator[Slope]:
        """Give what the equations say."""
        steps = (latent - (0 if coded.shift is None else coded.shift)) / coded.scale
        levels, inside = levels_of(coded, grid), (steps >= grid.lowest) & (steps <= 1)
        yield latent, inside
        share = gradient_scale(latent, grid)
        rounded_off = steps.where(inside, levels.new_zeros(())) if grid.levels == "zero_one" else 0
        yield learned["scale"], (levels - rounded_off) * share
        if coded.shift is not None:
            yield learned["shift"], ~inside * share
