"""What quantizers have in common whose grid reaches all numbers of a group, at every call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from torch import Tensor

from kronpress.layers import Coded, Grid, Groups, Learned, spanning
from kronpress.quantizers.quantizer import Quantizer, Slope, within


class Spanning(Quantizer):
    """A quantizer whose grid reaches all numbers; it learns nothing, and gradients pass straight through."""

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
