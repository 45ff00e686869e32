"""Module-wise dynamic scaling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from kronpress.layers import Coded, Grid, Groups, Learned
from kronpress.layers.grid import Levels
from kronpress.quantizers.least_squares import Line, LineFit, nearest
from kronpress.quantizers.quantizer import QUANTIZERS, SMALLEST, Quantizer, Slope, levels_of, mean_size


@QUANTIZERS.enroll
class ModuleWise(Quantizer):
    """Clipped at α = γ · ‖w‖₁/n with a learned γ for each tensor (Tao et al., 2022, QuantGPT).

    The levels are symmetric, α · {-1, …, 1}; 2 bits are {-1, 0, 1}. With u = clip(w/α, -1, 1), γ gets the gradient of
    numbers inside, Q(u) - w/α, and outside, -1 or 1, both times ‖w‖₁/n; the size ‖w‖₁/n counts as a constant. The
    numbers' gradient is 1 inside and 0 outside. A group has its own ‖w‖₁/n, so that α follows the weights.

    Attributes:
        gamma: where γ starts; by default where the squared error of the middle group is least.
    """

    kind: ClassVar[str] = "module_wise"
    symmetric: ClassVar[Sequence[Levels]] = ("ternary", "int3", "int4", "int8")
    gamma: float | None = Field(default=None, gt=0)

    def starts(self, latent: Groups, grid: Grid, start: Coded | None) -> dict[str, Tensor]:
        """Return γ."""
        if self.gamma is not None:
            return {"gamma": latent.new_full((1, 1, 1), self.gamma)}
        scale = nearest(latent, grid, narrow=True).scale if start is None else start.scale
        size = mean_size(latent)
        ratios = (scale * grid.numbers[-1] / size)[size > 0]
        gamma = ratios.median() if len(ratios) else latent.new_ones(())
        return {"gamma": gamma.view(1, 1, 1)}

    def codes(self, latent: Groups, grid: Grid, learned: Learned) -> Coded:
        """Return the nearest codes of clipped numbers."""
        clip = learned["gamma"].clamp(min=SMALLEST) * mean_size(latent)
        return LineFit(latent, grid, narrow=True).coded(Line(clip / grid.numbers[-1], None))

    def slopes(self, latent: Groups, grid: Grid, learned: Learned, *, coded: Coded) -> Iterator[Slope]:
        """Give what the paper says."""
        highest = grid.numbers[-1]
        shares = latent / torch.where(coded.scale == 0, 1.0, coded.scale * highest)  # w/α
        inside = shares.abs() <= 1
        yield latent, inside
        rounded_off = shares.where(inside, shares.new_zeros(()))
        yield learned["gamma"], (levels_of(coded, grid) / highest - rounded_off) * mean_size(latent)
