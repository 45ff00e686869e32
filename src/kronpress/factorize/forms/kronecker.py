"""Sums of Kronecker products, for linear layers and token tables."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from transformers import PreTrainedModel

from kronpress.errors import KronpressError
from kronpress.factorize.forms.form import FORMS, Form, Metric, Norm, Solution, Solver
from kronpress.factorize.reorder import own_orders, reorder_folds
from kronpress.factorize.target import Size, Target
from kronpress.families import Site, layout
from kronpress.layers import (
    FactoredEmbedding,
    FactoredTableSpec,
    KroneckerEmbedding,
    KroneckerEmbeddingSpec,
    KroneckerLinear,
    KroneckerLinearSpec,
    LayerSpec,
    NestedKroneckerEmbedding,
    NestedKroneckerEmbeddingSpec,
    StructuredLayer,
)
from kronpress.linalg import (
    KroneckerShape,
    KroneckerSum,
    nearest_kronecker_sum,
    nearest_low_rank,
    weighted_kronecker_sum,
)


@dataclass(frozen=True)
class KroneckerProblem:
    """A matrix as a sum of so many Kronecker products of factors of these shapes."""

    shape: KroneckerShape
    terms: int

    def nearest(self, weight: Float[Tensor, "m n"], metric: Metric) -> KroneckerSum:
        """Return the nearest sum (Van Loan and Pitsianis, 1993), or a near one for given inputs."""
        if metric.row_weights is not None and metric.second_moment is not None:
            assert self.shape.m2 == self.shape.n1 == 1, "such weights are for low-rank factors"
            product = nearest_low_rank(
                weight, rank=self.terms, second_moment=metric.second_moment, row_weights=metric.row_weights
            )
            return KroneckerSum(product.left.T[..., None], product.right[:, None], error=product.error)
        if metric.second_moment is not None:
            return weighted_kronecker_sum(
                weight,
                shape=self.shape,
                terms=self.terms,
                second_moment=metric.second_moment,
                curvature=metric.curvature,
            )
        return nearest_kronecker_sum(weight, shape=self.shape, terms=self.terms, row_weights=metric.row_weights)


@FORMS.enroll
class Kronecker(Form):
    """A sum of Kronecker products left ⊗ right (KnGPT2, KroneckerBERT, Krony-PT, TQCompressor).

    Attributes:
        left: (m1, n1) of the left factors, for matrices as out × in; swapped for `down`, whose matrix
            has the transposed shape (KroneckerBERT and Krony-PT name their shapes so).
        right: (m2, n2) of the right factors, swapped likewise; give either this or `left`.
        terms: Kronecker products in the sum.
        scales: keep a learnable scale per term apart from the factors (Krony-PT, section 3.3).
        levels: how often a table's left factor is factorized again, the first time included (TQCompressor: 2).
        permute: `folded` searches orders of the hidden neurons, which cost nothing later; `all` also orders of
            the other rows and columns, which the layers keep and apply (TQCompressor's permutations).
    """

    kind: ClassVar[str] = "kronecker"
    norms: ClassVar[frozenset[Norm]] = frozenset({"frobenius", "inputs", "rows", "two-sided"})
    tables: ClassVar[bool] = True
    left: Size | None = None
    right: Size | None = None
    terms: int = Field(default=1, ge=1)
    scales: bool = False
    levels: int = Field(default=1, ge=1)
    permute: Literal["none", "folded", "all"] = "none"

    def shape(self, target: Target) -> KroneckerShape:
        """Return the factors' shapes for a matrix.

        Raises:
            KronpressError: no shape is given, it does not divide the matrix, or it takes fewer terms.
        """
        return _shape(target, left=self.left, right=self.right, terms=self.terms)

    def spec(self, target: Target) -> LayerSpec:
        """Return a Kronecker layer or table; the orders that a search may leave out are all in it."""
        if target.table:
            return self._table_spec(target, levels=self.levels)
        return KroneckerLinearSpec(**self._sizes(target), bias=target.bias is not None)

    def _table_spec(self, target: Target, *, levels: int) -> FactoredTableSpec:
        if levels == 1:
            return KroneckerEmbeddingSpec(**self._sizes(target), padding_idx=target.padding_idx, scale=target.scale)
        shape = self.shape(target)
        inner = self._table_spec(_left_of(target, shape), levels=levels - 1)
        return NestedKroneckerEmbeddingSpec(
            inner=inner,
            right=(shape.m2, shape.n2),
            column_order=bool(self._axes(target)),
            padding_idx=target.padding_idx,
            scale=target.scale,
        )

    def _sizes(self, target: Target) -> dict[str, Any]:
        """Return the fields that linear layers and tables have in common."""
        shape, axes = self.shape(target), self._axes(target)
        orders = tuple(f"{axis[:-1]}_order" for axis in ("rows", "columns") if axis in axes)
        pairs = {"left": (shape.m1, shape.n1), "right": (shape.m2, shape.n2)}
        return {**pairs, "terms": self.terms, "scales": self.scales, "orders": orders}

    def problems(self, target: Target) -> Sequence[KroneckerProblem]:
        """Return one problem for each level."""
        if self.levels > 1 and (not target.table or self.terms > 1 or self.scales or self.right is None):
            raise KronpressError(
                f"levels: {self.levels} nests the factors of a token embedding, given by right, in one term without "
                f"scales; {target.path} is asked for otherwise: set levels: 1 or sites: embedding"
            )
        found = []
        for _ in range(self.levels):
            shape = self.shape(target)
            found.append(KroneckerProblem(shape, self.terms))
            target = _left_of(target, shape)
        return found

    def assemble(self, weight: Float[Tensor, "m n"], target: Target, solve: Solver) -> tuple[StructuredLayer, float]:
        """Solve level by level, the left factor of one being the matrix of the next."""
        if target.table and self.levels > 1:
            table = self._nested(weight, target, solve, levels=self.levels)
            return table, table.distance(weight)
        solution, orders = self._solved(weight, target, solve)
        value, scales = self._with_scale(solution)
        if target.table:
            table = KroneckerEmbedding.of(value, padding_idx=target.padding_idx, scales=scales, orders=orders)
            return table, value.error
        return KroneckerLinear.of(value, bias=target.bias, scales=scales, orders=orders), value.error

    def _nested(self, weight: Float[Tensor, "m n"], target: Target, solve: Solver, *, levels: int) -> FactoredEmbedding:
        solution, orders = self._solved(weight, target, solve)
        value, _ = self._with_scale(solution)
        if levels == 1:
            return KroneckerEmbedding.of(value, padding_idx=target.padding_idx, orders=orders)
        inner = self._nested(value.left[0], _left_of(target, value.shape), solve, levels=levels - 1)
        column_order = orders.get("column_order")
        return NestedKroneckerEmbedding.of(
            inner, value.right[0], column_order=column_order, padding_idx=target.padding_idx
        )

    def _solved(
        self, weight: Float[Tensor, "m n"], target: Target, solve: Solver
    ) -> tuple[Solution, dict[str, Tensor]]:
        shape = self.shape(target)
        orders: dict[str, Tensor] = {}
        if self.permute == "all":
            weight, orders = own_orders(weight, shape, terms=self.terms, axes=self._axes(target))
        return solve(weight, KroneckerProblem(shape, self.terms)), orders

    def _with_scale(self, solution: Solution) -> tuple[KroneckerSum, Tensor | None]:
        value, scale = solution.value, solution.scale
        if self.scales:
            return value, torch.full((value.terms,), scale)
        return value if scale == 1.0 else KroneckerSum(value.left, value.right * scale, error=value.error), None

    def _axes(self, target: Target) -> set[str]:
        """Return the sides whose orders the layer itself keeps."""
        if self.permute != "all":
            return set()
        return {"columns"} if target.table else {"rows", "columns"} - target.folded

    def by_block(self) -> bool:
        """Say that it does where nothing is reordered."""
        return self.permute == "none"

    def prepare(self, model: PreTrainedModel, sites: Collection[Site]) -> None:
        """Reorder what folds into neighbors, where that is asked for."""
        if self.permute != "none":
            reorder_folds(model, sites, terms=self.terms, shape_of=self.shape)

    def require_effect(self, model: PreTrainedModel, sites: Collection[Site], *, where: str) -> None:
        """Check that there is an order to fold."""
        paths = {site.path for site in sites}
        if self.permute == "folded" and not any(
            side.path in paths for fold in layout(model).folds for side in fold.sides
        ):
            raise KronpressError(f"permute: folded finds no order that folds into neighbors of {where}; leave it out")


def _shape(target: Target, *, left: Size | None, right: Size | None, terms: int) -> KroneckerShape:
    if (left is None) == (right is None):
        raise KronpressError(
            "a Kronecker factorization needs either left: [m1, n1] or right: [m2, n2], for instance "
            "right: [1, 2], which halves a matrix; `kronpress inspect MODEL` lists the shapes"
        )
    with target.named():
        if left is not None:
            shape = KroneckerShape.of_left(target.matrix, left=_oriented(left, target))
        else:
            assert right is not None
            shape = KroneckerShape.of_right(target.matrix, right=_oriented(right, target))
        shape.require_terms(terms)
        return shape


def _oriented(pair: Size, target: Target) -> Size:
    return (pair[1], pair[0]) if target.role == "down" else pair


def _left_of(target: Target, shape: KroneckerShape) -> Target:
    """Return the left factor of a table as a table."""
    return Target(target.path, target.role, (shape.m1, shape.n1), table=True)
