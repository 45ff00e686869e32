"""A dense matrix that factors are to replace, and what has replaced it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from kronpress.errors import KronpressError
from kronpress.families import Site
from kronpress.layers import StructuredLayer, bias_of, scale_of, weight_of

Size = tuple[int, int]


@dataclass(frozen=True)
class Target:
    """What a form must know of a dense layer, or of one share of a fused one.

    Attributes:
        path: of its module.
        role: what the module computes.
        matrix: (rows, columns) of its weight, out × in.
        table: whether it is a token table, not a linear layer.
        bias: that of a linear layer, if it has one; a fused module keeps its own.
        padding_idx: of a token table.
        scale: what a token table multiplies its rows by as they are looked up.
        folded: the sides ("rows", "columns") that can be reordered together with sides of other modules.
    """

    path: str
    role: str
    matrix: Size
    table: bool = False
    bias: Tensor | None = None
    padding_idx: int | None = None
    scale: float = 1.0
    folded: frozenset[str] = frozenset()

    @classmethod
    def of(cls, site: Site, layer: nn.Module) -> Target:
        """Return what `layer`, which stands at the site or is a share of it, shows."""
        rows, columns = weight_of(layer).shape
        table = isinstance(layer, nn.Embedding)
        padding_idx = layer.padding_idx if isinstance(layer, nn.Embedding) else None
        scale = scale_of(layer) if table else 1.0
        return cls(site.path, site.role, (rows, columns), table, bias_of(layer), padding_idx, scale, site.folded)

    @classmethod
    def of_weight(cls, site: Site, weight: Tensor) -> Target:
        """Return a weight at a site by itself, out × in."""
        return cls(site.path, site.role, (weight.shape[0], weight.shape[1]), folded=site.folded)

    @contextmanager
    def named(self) -> Iterator[None]:
        """Say in an error which matrix it is about."""
        try:
            yield
        except KronpressError as error:
            rows, columns = self.matrix
            raise KronpressError(f"{self.path} ({rows} × {columns}): {error}") from error


@dataclass(frozen=True)
class Fitted:
    """A layer in the place of a dense one, the norm of its error, and the norm of what it stands for."""

    layer: StructuredLayer
    error: float
    norm: float
