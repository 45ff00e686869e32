"""Kronecker factors from the weights alone: nearest, nearest and normalized, and every-other-channel."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from kronpress.errors import KronpressError
from kronpress.factorize.initialization import INITIALIZATIONS, MatrixInitialization
from kronpress.factorize.request import Request
from kronpress.families import Site, select_sites
from kronpress.layers import KroneckerEmbedding, KroneckerLinear, StructuredLayer, bias_of, weight_of
from kronpress.linalg import KroneckerShape, KroneckerSum, nearest_kronecker_sum
from kronpress.step import Workbench


class KroneckerInitialization(MatrixInitialization):
    """An initialization that writes one matrix as a sum of Kronecker products."""

    def check(self, bench: Workbench, request: Request) -> None:
        """Check sites and shapes."""
        for site in select_sites(bench.student, request.sites, skip_blocks=request.skip_blocks):
            layer = bench.student.get_submodule(site.path)
            if not isinstance(layer, StructuredLayer):
                request.shape(_size(weight_of(layer)), site=site)

    @abstractmethod
    def approximate(
        self, weight: Float[Tensor, "out in"], *, shape: KroneckerShape, terms: int
    ) -> tuple[KroneckerSum, float]:
        """Return the sum and a common factor that belongs in front of it; the error is that of both together."""

    def fit(
        self, weight: Float[Tensor, "out in"], *, site: Site, request: Request, layer: nn.Module
    ) -> tuple[StructuredLayer, float]:
        """Approximate the weight and build the layer."""
        shape = request.shape(_size(weight), site=site)
        value, scale = self.approximate(weight, shape=shape, terms=request.terms)
        structured = _layer(value, scale, keep_scales=request.scales, layer=layer)
        return structured, value.error


def _size(weight: Tensor) -> tuple[int, int]:
    return weight.shape[0], weight.shape[1]


def _layer(value: KroneckerSum, scale: float, *, keep_scales: bool, layer: nn.Module) -> StructuredLayer:
    scales = torch.full((value.terms,), scale) if keep_scales else None
    if not keep_scales and scale != 1.0:
        value = KroneckerSum(value.left, value.right * scale, error=value.error)
    if isinstance(layer, nn.Embedding):
        return KroneckerEmbedding.of(value, padding_idx=layer.padding_idx, scales=scales)
    return KroneckerLinear.of(value, bias=bias_of(layer), scales=scales)


@INITIALIZATIONS.register("van_loan")
class VanLoan(KroneckerInitialization):
    """The nearest sum of Kronecker products (Van Loan and Pitsianis; KnGPT2, KroneckerBERT)."""

    kind: ClassVar[str] = "van_loan"

    def approximate(
        self, weight: Float[Tensor, "out in"], *, shape: KroneckerShape, terms: int
    ) -> tuple[KroneckerSum, float]:
        """Return the nearest sum."""
        return nearest_kronecker_sum(weight, shape=shape, terms=terms), 1.0


@INITIALIZATIONS.register("van_loan_normalized")
class VanLoanNormalized(KroneckerInitialization):
    """The nearest sum, scaled to the norm of the weight: α = ‖W‖/‖Ŵ‖ (Krony-PT, section 3.2).

    With ρ = ‖Ŵ‖/‖W‖ the squared relative error grows from 1 − ρ² to 2 − 2ρ; the gain is the signal's size.
    """

    kind: ClassVar[str] = "van_loan_normalized"

    def approximate(
        self, weight: Float[Tensor, "out in"], *, shape: KroneckerShape, terms: int
    ) -> tuple[KroneckerSum, float]:
        """Return the nearest sum and α."""
        nearest = nearest_kronecker_sum(weight, shape=shape, terms=terms)
        whole = float(torch.linalg.vector_norm(weight.double()))
        kept = max(whole**2 - nearest.error**2, 0.0) ** 0.5
        error = (2 * whole * (whole - kept)) ** 0.5
        return KroneckerSum(nearest.left, nearest.right, error=error), whole / kept if kept else 1.0


@INITIALIZATIONS.register("pruning")
class Pruning(KroneckerInitialization):
    """Every k-th input or output channel, with the channels between as ε copies (Krony-PT, section 3.4).

    For a right factor of shape (1, k) left is W[:, ::k] and right is [1, ε, …]; for (k, 1) left is
    W[::k, :] and right its transpose. The published ε is 0.1; 0 leaves dead factors.
    """

    kind: ClassVar[str] = "pruning"
    epsilon: float = Field(default=0.1)

    def approximate(
        self, weight: Float[Tensor, "out in"], *, shape: KroneckerShape, terms: int
    ) -> tuple[KroneckerSum, float]:
        """Return the chosen channels and the row or column [1, ε, …]."""
        if terms != 1 or 1 not in (shape.m2, shape.n2):
            raise KronpressError(
                f"pruning takes one term and a right factor that is a row or a column, not {terms} terms of "
                f"{shape.m2} × {shape.n2}; choose right: [1, 2]"
            )
        right = torch.full((1, shape.m2, shape.n2), self.epsilon, dtype=weight.dtype, device=weight.device)
        right[:, 0, 0] = 1.0
        left = weight[:: shape.m2, :: shape.n2][None].clone()
        missed = weight - KroneckerSum(left, right).to_dense()
        return KroneckerSum(left, right, error=float(torch.linalg.vector_norm(missed.double()))), 1.0
