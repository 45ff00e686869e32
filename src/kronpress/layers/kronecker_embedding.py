"""Token tables over Kronecker products, plain and nested."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float, Int
from pydantic import SerializeAsAny, StrictBool
from torch import Tensor, nn

from kronpress.layers.embedding import FactoredEmbedding, FactoredTableSpec
from kronpress.layers.formats import TensorSpec, order_dtype, order_spec
from kronpress.layers.kronecker import KroneckerFactors, KroneckerSpec, Orders, inverse_order, sizes_of
from kronpress.layers.specs import SPECS, Device, DType, InnerProducts, LayerSpec, Pair
from kronpress.layers.structured import empty, full_precision, on_grids
from kronpress.linalg import KroneckerSum


@SPECS.enroll
class KroneckerEmbeddingSpec(KroneckerSpec, FactoredTableSpec):
    """The form of a `KroneckerEmbedding`."""

    kind: ClassVar[str] = "kronecker_embedding"

    @property
    def inner_products(self) -> InnerProducts:
        """One over the terms for each number of the row."""
        return [(self.terms, self.matrix[1])]

    @property
    def score_products(self) -> InnerProducts:
        """Those of the product."""
        return self.products

    def build(self, *, device: Device = None, dtype: DType = None) -> KroneckerEmbedding:
        """Return a table of this form whose numbers are not set."""
        return on_grids(KroneckerEmbedding(self, device=device, dtype=dtype), self)


class KroneckerEmbedding(KroneckerFactors, FactoredEmbedding):
    """A look-up table Σ scale_k · left_k ⊗ right_k; row i is left[i // m2] ⊗ right[i % m2].

    Rows stay independent: a look-up costs O(terms · dimension) (KroneckerBERT, section 3.3).
    """

    def __init__(self, spec: KroneckerEmbeddingSpec, *, device: Device = None, dtype: DType = None) -> None:
        super().__init__(spec, device=device, dtype=dtype)
        self.num_embeddings, self.embedding_dim = self.shape.matrix
        self.padding_idx, self.scale = spec.padding_idx, spec.scale

    @classmethod
    def of(
        cls,
        value: KroneckerSum,
        *,
        padding_idx: int | None = None,
        scales: Float[Tensor, " terms"] | None = None,
        orders: Orders | None = None,
    ) -> KroneckerEmbedding:
        """Return a table that computes with the factors of `value`, scaled and reordered."""
        spec = KroneckerEmbeddingSpec(**sizes_of(value.shape, value.terms), padding_idx=padding_idx)
        layer = cls(spec, device="meta")
        layer.fill(value, scales=scales, orders=orders or {})
        return layer

    @property
    def spec(self) -> KroneckerEmbeddingSpec:
        """The form of the table as it is now."""
        return KroneckerEmbeddingSpec(**self.form(), **self.grids, padding_idx=self.padding_idx, scale=self.scale)

    def rows(self, ids: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch dim"]:
        """Look the rows up."""
        left, right = self.factors()
        ids = ids if self.row_order is None else self.row_order[ids].long()
        with full_precision(ids.device):
            if self.shape.m2 == 1:  # one right factor for all ids, not a copy for each
                rows = torch.einsum("t...i,tj->...ij", left[:, ids], right[:, 0]).flatten(-2)
            else:
                rows_left, rows_right = left[:, ids // self.shape.m2], right[:, ids % self.shape.m2]
                rows = torch.einsum("t...i,t...j->...ij", rows_left, rows_right).flatten(-2)
        return rows if self.column_order is None else rows[..., inverse_order(self.column_order)]

    def scores(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch vocabulary"]:
        """Return x · Wᵀ."""
        return self.product(x)

    def extra_repr(self) -> str:
        """Return the factors as the printed model shows them."""
        return f"{self.num_embeddings}, {self.embedding_dim}, {self.factors_repr()}"


@SPECS.enroll
class NestedKroneckerEmbeddingSpec(FactoredTableSpec):
    """The form of a `NestedKroneckerEmbedding`."""

    kind: ClassVar[str] = "nested_kronecker_embedding"

    inner: SerializeAsAny[FactoredTableSpec]
    right: Pair
    column_order: StrictBool = False

    @property
    def matrix(self) -> tuple[int, int]:
        """The (rows, columns) of the product."""
        rows, columns = self.inner.matrix
        return rows * self.right[0], columns * self.right[1]

    @property
    def own_tensors(self) -> dict[str, TensorSpec]:
        """The right factor and the order."""
        order = {"column_order": order_spec(self.matrix[1])} if self.column_order else {}
        return {"right": self.tensor(*self.right)} | order

    @property
    def inside(self) -> dict[str, LayerSpec]:
        """The inner table."""
        return {"inner": self.inner}

    @property
    def inner_products(self) -> InnerProducts:
        """One multiplication for each number of the row, at each level."""
        return [*self.inner.inner_products, (1, self.matrix[1])]

    @property
    def score_products(self) -> InnerProducts:
        """Those with the right factor, then those of the inner table."""
        m2, n2 = self.right
        inner = [(length, m2 * count) for length, count in self.inner.score_products]
        return [(n2, m2 * self.inner.matrix[1]), *inner]

    def build(self, *, device: Device = None, dtype: DType = None) -> NestedKroneckerEmbedding:
        """Return a table of this form whose numbers are not set."""
        return on_grids(NestedKroneckerEmbedding(self, device=device, dtype=dtype), self)


class NestedKroneckerEmbedding(FactoredEmbedding):
    """A look-up table inner ⊗ right whose left factor is a factored table in turn (TQCompressor's embedding).

    Attributes:
        inner: the left factor, (rows / m2, dimension / n2).
        right: (m2, n2).
        column_order: as in `KroneckerFactors`, or None.
    """

    column_order: Tensor | None

    def __init__(self, spec: NestedKroneckerEmbeddingSpec, *, device: Device = None, dtype: DType = None) -> None:
        super().__init__()
        self.inner = spec.inner.build(device=device, dtype=dtype)
        self.right = empty(*spec.right, device=device, dtype=dtype)
        self.num_embeddings, self.embedding_dim = spec.matrix
        order = None
        if spec.column_order:
            order = torch.arange(self.embedding_dim, dtype=order_dtype(self.embedding_dim), device=device)
        self.register_buffer("column_order", order)
        self.padding_idx, self.scale = spec.padding_idx, spec.scale

    @classmethod
    def of(
        cls,
        inner: FactoredEmbedding,
        right: Float[Tensor, "m2 n2"],
        *,
        column_order: Int[Tensor, " dim"] | None = None,
        padding_idx: int | None = None,
    ) -> NestedKroneckerEmbedding:
        """Return the table of the given factors."""
        pair = right.shape[0], right.shape[1]
        layer = cls(NestedKroneckerEmbeddingSpec(inner=inner.spec, right=pair, padding_idx=padding_idx), device="meta")
        layer.inner, layer.right = inner, nn.Parameter(right.contiguous())
        if column_order is not None:
            layer.column_order = column_order.to(right.device, order_dtype(len(column_order)))
        return layer

    @property
    def spec(self) -> NestedKroneckerEmbeddingSpec:
        """The form of the table as it is now."""
        return NestedKroneckerEmbeddingSpec(
            inner=self.inner.spec,
            right=(self.right.shape[0], self.right.shape[1]),
            column_order=self.column_order is not None,
            padding_idx=self.padding_idx,
            scale=self.scale,
            **self.grids,
        )

    def rows(self, ids: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch dim"]:
        """Look the rows up."""
        m2 = len(self.right)
        with full_precision(ids.device):
            rows: Tensor = (self.inner(ids // m2)[..., None] * self.right[ids % m2][..., None, :]).flatten(-2)
        return rows if self.column_order is None else rows[..., inverse_order(self.column_order)]

    def scores(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch vocabulary"]:
        """Return x · Wᵀ: the right factor first, then the scores of the inner table."""
        x = x if self.column_order is None else x[..., self.column_order.long()]
        folded = x.unflatten(-1, (self.inner.embedding_dim, self.right.shape[1])) @ self.right.T  # … n1 m2
        scores: Tensor = self.inner(folded.transpose(-1, -2), score=True)  # … m2 rows/m2
        return scores.transpose(-1, -2).flatten(-2)

    def dense_weight(self) -> Float[Tensor, "vocabulary dim"]:
        """Return the table."""
        weight = torch.kron(self.inner.dense_weight(), self.right)
        return weight if self.column_order is None else weight[:, inverse_order(self.column_order)]

    def extra_repr(self) -> str:
        """Return the sizes as the printed model shows them."""
        (m2, n2), order = self.right.shape, "" if self.column_order is None else ", column_order"
        return f"{self.num_embeddings}, {self.embedding_dim}, right={m2}×{n2}{order}"
