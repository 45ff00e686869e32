"""The grid with the least squared error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from kronpress.layers import LEVELS, Coded, Grid, Groups, Learned
from kronpress.layers.grid import Levels
from kronpress.quantizers.least_squares import nearest
from kronpress.quantizers.lsq import learned_scales
from kronpress.quantizers.quantizer import QUANTIZERS, Quantizer, Slope


@QUANTIZERS.enroll
class LeastSquares(Quantizer):
    """The scale, and shift, with the least Σ d (value - w)²; in training they stay as they were at its start (ours).

    Of grids that reach all numbers and ever fewer of them, each a seventh narrower, the best is taken; then scale (and
    shift) and codes are fitted to one another. The error is never above that of `maxabs` or `minmax`. Gradients pass
    straight through where the grid reaches.

    Attributes:
        iterations: how often scale and codes are fitted to one another at most.
    """

    kind: ClassVar[str] = "mse"
    keeps: ClassVar[Sequence[Levels]] = tuple(LEVELS)
    steady: ClassVar[bool] = True
    symmetric: ClassVar[Sequence[Levels]] = tuple(LEVELS)
    shifted: ClassVar[Sequence[Levels]] = ("uint8", "uint4", "uint3", "uint2", "zero_one")
    inputs: ClassVar[Literal["dynamic", "stored"] | None] = "stored"
    weighs: ClassVar[bool] = True
    fixed: ClassVar[frozenset[str]] = frozenset({"scale", "shift"})
    iterations: int = Field(default=10, ge=0)

    def starts(self, latent: Groups, grid: Grid, start: Coded | None) -> dict[str, Tensor]:
        """Return the scale and shift."""
        return learned_scales(nearest(latent, grid, iterations=self.iterations) if start is None else start)

    def codes(self, latent: Groups, grid: Grid, learned: Learned) -> Coded:
        """Return the nearest codes."""
        scale, shift = learned["scale"], learned.get("shift")
        return Coded(grid.codes(latent, scale, shift), scale, shift)

    def weighted(self, latent: Groups, grid: Grid, *, weights: Groups) -> Coded:
        """Return the codes with the least weighted error."""
        return nearest(latent, grid, weights=weights, iterations=self.iterations)

    def slopes(self, latent: Groups, grid: Grid, learned: Learned, *, coded: Coded) -> Iterator[Slope]:
        """Give 1 where the grid reaches."""
        centered = latent if coded.shift is None else latent - coded.shift
        yield latent, (centered >= grid.lowest * coded.scale) & (centered <= grid.numbers[-1] * coded.scale)
