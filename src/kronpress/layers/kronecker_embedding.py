"""Token tables over Kronecker products, plain and nested."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from kronpress.layers.embedding import FactoredEmbedding
from kronpress.layers.kronecker import KroneckerFactors, Orders, inverse_order
from kronpress.layers.structured import LAYERS, InnerProducts, built, empty, full_precision
from kronpress.linalg import KroneckerSum


@LAYERS.register("kronecker_embedding")
class KroneckerEmbedding(KroneckerFactors, FactoredEmbedding):
    """A look-up table Σ scale_k · left_k ⊗ right_k; row i is left[i // m2] ⊗ right[i % m2].

    Rows stay independent: a look-up costs O(terms · dimension) (KroneckerBERT, section 3.3).
    """

    kind = "kronecker_embedding"

    def __init__(self, *, padding_idx: int | None = None, **fields: Any) -> None:
        super().__init__(**fields)
        self.num_embeddings, self.embedding_dim = self.shape.matrix
        self.padding_idx = padding_idx

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
        layer = cls(padding_idx=padding_idx, **cls.fields_of(value, scales=scales, orders=orders or {}))
        layer.fill(value, scales=scales, orders=orders or {})
        return layer

    def rows(self, ids: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch dim"]:
        """Look the rows up."""
        left, right = self.factors()
        ids = ids if self.row_order is None else self.row_order[ids]
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

    def spec(self) -> dict[str, Any]:
        """Return the factors' spec and the padding index."""
        return super().spec() | {"padding_idx": self.padding_idx}

    @property
    def inner_products(self) -> InnerProducts:
        """One over the terms for each number of the row."""
        return [(self.terms, self.embedding_dim)]

    @property
    def score_products(self) -> InnerProducts:
        """Those of the product."""
        return self.products

    def extra_repr(self) -> str:
        """Return the factors as the printed model shows them."""
        return f"{self.num_embeddings}, {self.embedding_dim}, {self.factors_repr()}"


@LAYERS.register("nested_kronecker_embedding")
class NestedKroneckerEmbedding(FactoredEmbedding):
    """A look-up table inner ⊗ right whose left factor is a factored table in turn (TQCompressor's embedding).

    Attributes:
        inner: the left factor, (rows / m2, dimension / n2).
        right: (m2, n2).
        column_order: as in `KroneckerFactors`, or None.
    """

    kind = "nested_kronecker_embedding"
    column_order: Tensor | None

    def __init__(
        self,
        *,
        inner: dict[str, Any] | FactoredEmbedding,
        right: tuple[int, int] | list[int],
        column_order: bool = False,
        padding_idx: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        own = built(inner, device=device, dtype=dtype)
        assert isinstance(own, FactoredEmbedding), f"a table over {own}"
        self.inner = own
        self.right = empty(*right, device=device, dtype=dtype)
        self.num_embeddings, self.embedding_dim = own.num_embeddings * right[0], own.embedding_dim * right[1]
        order = torch.arange(self.embedding_dim, dtype=torch.int32, device=device) if column_order else None
        self.register_buffer("column_order", order)
        self.padding_idx = padding_idx

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
        layer = cls(inner=inner, right=(right.shape[0], right.shape[1]), padding_idx=padding_idx, device="meta")
        layer.right = nn.Parameter(right.contiguous())
        if column_order is not None:
            layer.column_order = column_order.to(right.device, torch.int32)
        return layer

    def rows(self, ids: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch dim"]:
        """Look the rows up."""
        m2 = len(self.right)
        with full_precision(ids.device):
            rows: Tensor = (self.inner(ids // m2)[..., None] * self.right[ids % m2][..., None, :]).flatten(-2)
        return rows if self.column_order is None else rows[..., inverse_order(self.column_order)]

    def scores(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch vocabulary"]:
        """Return x · Wᵀ: the right factor first, then the scores of the inner table."""
        x = x if self.column_order is None else x[..., self.column_order]
        folded = x.unflatten(-1, (self.inner.embedding_dim, self.right.shape[1])) @ self.right.T  # … n1 m2
        scores: Tensor = self.inner(folded.transpose(-1, -2), score=True)  # … m2 rows/m2
        return scores.transpose(-1, -2).flatten(-2)

    def dense_weight(self) -> Float[Tensor, "vocabulary dim"]:
        """Return the table."""
        weight = torch.kron(self.inner.dense_weight(), self.right)
        return weight if self.column_order is None else weight[:, inverse_order(self.column_order)]

    def spec(self) -> dict[str, Any]:
        """Return kind, the inner table's spec, the right factor's shape, whether there is an order, the padding."""
        return {
            "kind": self.kind,
            "inner": self.inner.spec(),
            "right": list(self.right.shape),
            "column_order": self.column_order is not None,
            "padding_idx": self.padding_idx,
        }

    @property
    def inner_products(self) -> InnerProducts:
        """One multiplication for each number of the row, at each level."""
        return [*self.inner.inner_products, (1, self.embedding_dim)]

    @property
    def score_products(self) -> InnerProducts:
        """Those with the right factor, then those of the inner table."""
        m2, n2 = self.right.shape
        inner = [(length, m2 * count) for length, count in self.inner.score_products]
        return [(n2, m2 * self.inner.embedding_dim), *inner]

    def extra_repr(self) -> str:
        """Return the sizes as the printed model shows them."""
        (m2, n2), order = self.right.shape, "" if self.column_order is None else ", column_order"
        return f"{self.num_embeddings}, {self.embedding_dim}, right={m2}×{n2}{order}"
