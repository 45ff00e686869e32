"""Low-rank factors from the weights alone: the baseline that Kronecker sums are measured against."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from kronpress.errors import KronpressError
from kronpress.factorize.initialization import INITIALIZATIONS, MatrixInitialization
from kronpress.factorize.request import Request
from kronpress.families import Site
from kronpress.layers import LowRankLinear, StructuredLayer, bias_of
from kronpress.linalg import nearest_low_rank


@INITIALIZATIONS.register("svd")
class Svd(MatrixInitialization):
    """The truncated singular value decomposition, at the rank that keeps `ratio` of the parameters."""

    kind: ClassVar[str] = "svd"
    reads: ClassVar[frozenset[str]] = frozenset({"ratio"})

    def fit(
        self, weight: Float[Tensor, "out in"], *, site: Site, request: Request, layer: nn.Module
    ) -> tuple[StructuredLayer, float]:
        """Truncate the decomposition and build the layer."""
        if isinstance(layer, nn.Embedding):
            raise KronpressError(f"svd makes linear layers, not the table {site.path}; leave it out of sites")
        value = nearest_low_rank(weight, rank=request.rank((weight.shape[0], weight.shape[1])))
        return LowRankLinear.of(value, bias=bias_of(layer)), value.error
