"""Loss-aware binarization, ternarization and quantization."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from kronpress.layers import Coded, Grid, Groups, Learned, Scales
from kronpress.layers.grid import Levels
from kronpress.quantizers.least_squares import Line, LineFit, nearest, span
from kronpress.quantizers.quantizer import QUANTIZERS, Quantizer, Slope, mean_size, within
from kronpress.quantizers.twn import THRESHOLD

_FEW = ("binary", "ternary")


@QUANTIZERS.enroll
class LossAware(Quantizer):
    """α · b nearest to w in Σ d (αb - w)², with d the diagonal of the loss's Hessian (Hou & Kwok, 2018, section 3).

    Scale and codes are fitted to one another in turn: α = Σ dbw / Σ db² and b = the levels nearest to w/α. For two
    levels that ends at once (Hou et al., 2017, LAB, proposition 3.1): b = sign(w), α = ‖d ⊙ w‖₁ / ‖d‖₁. Three begin at
    TWN's codes, so that the error is at most theirs; more begin at the better of what reaches all numbers and what was
    nearest before training. Levels are symmetric around zero. As in the papers, d is the square root of Adam's second
    moment (`take_importance`); until there is one it is 1, as it always is in the released code of BinaryBERT, whose α
    for more than three levels divides by Σ d|b|. Gradients pass straight through.

    Attributes:
        iterations: how often scale and codes are fitted to one another at most.
    """

    kind: ClassVar[str] = "laq"
    keeps: ClassVar[Sequence[Levels]] = ("binary", "ternary")
    symmetric: ClassVar[Sequence[Levels]] = ("binary", "ternary", "int3", "int4", "int8")
    weighs: ClassVar[bool] = True
    fixed: ClassVar[frozenset[str]] = frozenset({"importance", "start"})
    iterations: int = Field(default=10, ge=1)

    def starts(self, latent: Groups, grid: Grid, start: Coded | None) -> dict[str, Tensor]:
        """Return d, all 1, and for more than three levels the scale that alternation starts from."""
        learned = {"importance": torch.ones_like(latent)}
        if grid.levels in _FEW:
            return learned
        return learned | {"start": (start or nearest(latent, grid, narrow=True)).scale}

    def codes(self, latent: Groups, grid: Grid, learned: Learned) -> Coded:
        """Return the codes and scales that alternation comes to."""
        return self._alternate(latent, grid, weights=learned["importance"], start=learned.get("start"))

    def weighted(self, latent: Groups, grid: Grid, *, weights: Groups) -> Coded:
        """Return the codes and scales for given d; of more than three levels never worse than for d = 1."""
        if grid.levels in _FEW:
            return self._alternate(latent, grid, weights=weights, start=None)
        plain = self.codes(latent, grid, self.starts(latent, grid, None))
        fit = LineFit(latent, grid, weights=weights, narrow=True)
        found = nearest(latent, grid, weights=weights, narrow=True, iterations=self.iterations)
        lines = [Line(found.scale, None), Line(plain.scale, None)]
        return fit.better(fit.descend(lines, iterations=self.iterations), lines[1])

    def slopes(self, latent: Groups, grid: Grid, learned: Learned, *, coded: Coded) -> Iterator[Slope]:
        """Give 1 for all numbers."""
        yield latent, within(latent, None)

    def _alternate(self, latent: Groups, grid: Grid, *, weights: Groups, start: Scales | None) -> Coded:
        fit = LineFit(latent, grid, weights=weights, narrow=True)
        return fit.coded(fit.descend(_starts(fit, start), iterations=self.iterations))


def _starts(fit: LineFit, start: Scales | None) -> Iterable[Line]:
    latent, grid = fit.groups, fit.grid
    if start is not None:
        return [Line(start, None), span(latent, grid)]
    size = Line(mean_size(latent), None)
    if grid.levels == "binary":
        return [size]
    kept = latent.abs() > THRESHOLD * size.scale
    return [fit.refit(latent.sign() * kept, size)[0]]
