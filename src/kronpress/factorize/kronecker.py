"""Kronecker factors from the weights alone: nearest, nearest and normalized, and every-other-channel."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from transformers import PreTrainedModel

from kronpress.errors import KronpressError
from kronpress.factorize.initialization import INITIALIZATIONS, MatrixInitialization, shares_of
from kronpress.factorize.reorder import own_orders, reorder_folds
from kronpress.factorize.request import Request
from kronpress.families import Site
from kronpress.layers import (
    FactoredEmbedding,
    KroneckerEmbedding,
    KroneckerLinear,
    NestedKroneckerEmbedding,
    StructuredLayer,
    bias_of,
    weight_of,
)
from kronpress.linalg import KroneckerShape, KroneckerSum, nearest_kronecker_sum
from kronpress.step import Workbench


class KroneckerInitialization(MatrixInitialization):
    """An initialization that writes one matrix as a sum of Kronecker products."""

    reads: ClassVar[frozenset[str]] = frozenset({"left", "right", "terms", "scales", "levels", "permute", "head"})

    def check(self, bench: Workbench, request: Request) -> None:
        """Check sites, shapes and what only some layers can do."""
        for site in request.sites_of(bench.student):
            layer = bench.student.get_submodule(site.path)
            if isinstance(layer, StructuredLayer):
                continue
            for share in shares_of(layer, site):
                self._check_shape(request.shape(_size(weight_of(share)), site=site), terms=request.terms)
            self._check_levels(layer, site, request)

    def _check_shape(self, shape: KroneckerShape, *, terms: int) -> None:
        """Refuse shapes that this initialization can not fill."""

    def _check_levels(self, layer: nn.Module, site: Site, request: Request) -> None:
        if request.levels == 1:
            return
        if not isinstance(layer, nn.Embedding) or request.terms > 1 or request.scales or request.right is None:
            raise KronpressError(
                f"levels: {request.levels} nests the factors of a token embedding, given by right, in one term without "
                f"scales; {site.path} is asked for otherwise: set levels: 1 or sites: embedding"
            )

    @abstractmethod
    def approximate(
        self, weight: Float[Tensor, "out in"], *, shape: KroneckerShape, terms: int
    ) -> tuple[KroneckerSum, float]:
        """Return the sum and a common factor that belongs in front of it; the error is that of both together."""

    def prepare(self, model: PreTrainedModel, sites: list[Site], request: Request) -> None:
        """Reorder what folds into neighbours, where the request asks for it."""
        if request.permute != "none":
            reorder_folds(model, sites, request)

    def fit(
        self, weight: Float[Tensor, "out in"], *, site: Site, request: Request, layer: nn.Module
    ) -> tuple[StructuredLayer, float]:
        """Approximate the weight and build the layer."""
        if isinstance(layer, nn.Embedding):
            table = self._table(weight, site, request, padding_idx=layer.padding_idx)
            return table, table.distance(weight)
        value, scale, orders = self._approximate(weight, site, request)
        if request.scales:
            scales = torch.full((value.terms,), scale)
            return KroneckerLinear.of(value, bias=bias_of(layer), scales=scales, orders=orders), value.error
        return KroneckerLinear.of(_scaled(value, scale), bias=bias_of(layer), orders=orders), value.error

    def _approximate(
        self, weight: Float[Tensor, "out in"], site: Site, request: Request
    ) -> tuple[KroneckerSum, float, dict[str, Tensor]]:
        shape = request.shape(_size(weight), site=site)
        orders: dict[str, Tensor] = {}
        if request.permute == "all":
            axes = {"columns"} if site.role == "embedding" else {"rows", "columns"} - site.folded
            weight, orders = own_orders(weight, shape, terms=request.terms, axes=axes)
        return *self.approximate(weight, shape=shape, terms=request.terms), orders

    def _table(
        self, weight: Float[Tensor, "out in"], site: Site, request: Request, *, padding_idx: int | None
    ) -> FactoredEmbedding:
        value, scale, orders = self._approximate(weight, site, request)
        if request.scales:
            scales = torch.full((value.terms,), scale)
            return KroneckerEmbedding.of(value, padding_idx=padding_idx, scales=scales, orders=orders)
        value = _scaled(value, scale)
        if request.levels == 1:
            return KroneckerEmbedding.of(value, padding_idx=padding_idx, orders=orders)
        deeper = request.model_copy(update={"levels": request.levels - 1})
        inner = self._table(value.left[0], site, deeper, padding_idx=None)
        column_order = orders.get("column_order")
        return NestedKroneckerEmbedding.of(inner, value.right[0], column_order=column_order, padding_idx=padding_idx)


def _size(weight: Tensor) -> tuple[int, int]:
    return weight.shape[0], weight.shape[1]


def _scaled(value: KroneckerSum, scale: float) -> KroneckerSum:
    return value if scale == 1.0 else KroneckerSum(value.left, value.right * scale, error=value.error)


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

    def _check_shape(self, shape: KroneckerShape, *, terms: int) -> None:
        if terms != 1 or 1 not in (shape.m2, shape.n2):
            raise KronpressError(
                f"pruning takes one term and a right factor that is a row or a column, not {terms} terms of "
                f"{shape.m2} × {shape.n2}; choose right: [1, 2]"
            )

    def approximate(
        self, weight: Float[Tensor, "out in"], *, shape: KroneckerShape, terms: int
    ) -> tuple[KroneckerSum, float]:
        """Return the chosen channels and the row or column [1, ε, …]."""
        self._check_shape(shape, terms=terms)
        right = torch.full((1, shape.m2, shape.n2), self.epsilon, dtype=weight.dtype, device=weight.device)
        right[:, 0, 0] = 1.0
        left = weight[:: shape.m2, :: shape.n2][None].clone()
        missed = weight - KroneckerSum(left, right).to_dense()
        return KroneckerSum(left, right, error=float(torch.linalg.vector_norm(missed.double()))), 1.0
