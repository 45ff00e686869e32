"""Learned step size quantization."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

from torch import Tensor

from kronpress.layers import LEVELS, Coded, Grid, Groups, Learned
from kronpress.layers.grid import Levels
from kronpress.quantizers.least_squares import nearest
from kronpress.quantizers.quantizer import QUANTIZERS, Quantizer, Slope, levels_of, mean_size, positive


@QUANTIZERS.enroll
class LearnedStep(Quantizer):
    """s · round(clip(w/s, Qn, Qp)) with a learned step s (Esser et al., 2020, LSQ, equations 1 and 2).

    The step's gradient is that of equation 3, round(w/s) - w/s inside and Qn or Qp outside, times 1/√(numel · Qp) with
    the numbers that share the step (section 2.2); the numbers' is equation 5, 1 inside and 0 outside. With a shift it
    is s · round(clip((w - β)/s, 0, Qp)) + β with a learned β, whose gradient is 1 outside, times the same (Bhalgat et
    al., 2020, LSQ+, section 3). Steps start at 2·mean|w|/√Qp; with a shift at 4·mean|w|/√Qp and β = min w, as in the
    released code of BinaryBERT, which learns no β. Steps below the smallest scale count as that, with the same
    gradient.

    Attributes:
        init: where steps start: `mean`, as above, or `nearest`, where the squared error is least, as LSQ+ does
            for inputs.
    """

    kind: ClassVar[str] = "lsq"
    keeps: ClassVar[Sequence[Levels]] = tuple(LEVELS)
    steady: ClassVar[bool] = True
    symmetric: ClassVar[Sequence[Levels]] = ("int8", "int4", "int3", "int2", "raised2", "ternary")
    shifted: ClassVar[Sequence[Levels]] = ("uint8", "uint4", "uint3", "uint2")
    inputs: ClassVar[Literal["dynamic", "stored"] | None] = "stored"
    init: Literal["mean", "nearest"] = "mean"

    def starts(self, latent: Groups, grid: Grid, start: Coded | None) -> dict[str, Tensor]:
        """Return the step, and the shift."""
        if start is not None or self.init == "nearest":
            return learned_scales(start or nearest(latent, grid))
        scale = (4 if grid.shift else 2) * mean_size(latent) / math.sqrt(grid.numbers[-1])
        return {"scale": scale} | ({"shift": latent.amin(dim=-1, keepdim=True)} if grid.shift else {})

    def codes(self, latent: Groups, grid: Grid, learned: Learned) -> Coded:
        """Return the nearest codes."""
        return nearest_codes(latent, grid, learned)

    def slopes(self, latent: Groups, grid: Grid, learned: Learned, *, coded: Coded) -> Iterator[Slope]:
        """Give what the equations say."""
        steps = (latent - (0 if coded.shift is None else coded.shift)) / coded.scale
        levels, inside = levels_of(coded, grid), (steps >= grid.lowest) & (steps <= grid.numbers[-1])
        yield latent, inside
        share = gradient_scale(latent, grid)
        yield learned["scale"], (levels - steps.where(inside, levels.new_zeros(()))) * share
        if coded.shift is not None:
            yield learned["shift"], ~inside * share


def learned_scales(start: Coded) -> dict[str, Tensor]:
    """Return the scale and shift of codes as what is learned."""
    return {"scale": start.scale} | ({} if start.shift is None else {"shift": start.shift})


def nearest_codes(latent: Groups, grid: Grid, learned: Learned) -> Coded:
    """Return the nearest codes with a learned scale and shift."""
    scale = positive(learned["scale"], grid)
    shift = grid.rounded(learned["shift"]) if "shift" in learned else None
    return Coded(grid.codes(latent, scale, shift), scale, shift)


def gradient_scale(latent: Groups, grid: Grid) -> float:
    """Return 1/√(numel · Qp), by which the gradients of a learned step are multiplied (LSQ, section 2.2)."""
    return 1 / math.sqrt(latent.shape[-1] * grid.numbers[-1])
