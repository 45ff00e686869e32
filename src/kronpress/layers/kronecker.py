"""Linear and embedding layers over a sum of Kronecker products."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from kronpress.errors import KronpressError
from kronpress.layers import dense
from kronpress.layers.structured import LAYERS, StructuredLayer, empty
from kronpress.linalg import KroneckerShape, KroneckerSum, expand


class KroneckerFactors(StructuredLayer):
    """The factors of Σ scale_k · left_k ⊗ right_k, shared by the linear and the embedding form.

    Attributes:
        left: (terms, m1, n1).
        right: (terms, m2, n2).
        scales: (terms,) or None; learnable, kept apart from the factors (Krony-PT, section 3.3).
    """

    def __init__(
        self,
        *,
        left: tuple[int, int] | list[int],
        right: tuple[int, int] | list[int],
        terms: int = 1,
        scales: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.shape = KroneckerShape(left[0], left[1], right[0], right[1])
        self.terms = terms
        self.left = empty(terms, *left, device=device, dtype=dtype)
        self.right = empty(terms, *right, device=device, dtype=dtype)
        self.scales = empty(terms, device=device, dtype=dtype) if scales else None

    def spec(self) -> dict[str, Any]:
        """Return kind, factor shapes, terms and whether there are scales."""
        shape = self.shape
        return {
            "kind": self.kind,
            "left": [shape.m1, shape.n1],
            "right": [shape.m2, shape.n2],
            "terms": self.terms,
            "scales": self.scales is not None,
        }

    def factors(self) -> tuple[Float[Tensor, "terms m1 n1"], Float[Tensor, "terms m2 n2"]]:
        """Return (left, right) with the scales multiplied into the smaller of the two."""
        if self.scales is None:
            return self.left, self.right
        scales = self.scales[:, None, None]
        if self.left.numel() < self.right.numel():
            return self.left * scales, self.right
        return self.left, self.right * scales

    def dense_weight(self) -> Float[Tensor, "m n"]:
        """Return the product, scales included."""
        return expand(*self.factors())

    def fill(self, value: KroneckerSum, *, scales: Float[Tensor, " terms"] | None = None) -> None:
        """Take over the factors of `value` as own parameters; a layer with scales starts them at 1."""
        self.left = nn.Parameter(value.left.contiguous())
        self.right = nn.Parameter(value.right.contiguous())
        if self.scales is not None:
            start = torch.ones(self.terms) if scales is None else scales
            self.scales = nn.Parameter(start.to(value.left))


@LAYERS.register("kronecker_linear")
class KroneckerLinear(KroneckerFactors):
    """y = (Σ scale_k · left_k ⊗ right_k) x + bias, without ever forming the product.

    With x folded to X (n1, n2), (left ⊗ right) x = left · X · rightᵀ; the cheaper order of the two
    products is taken (KroneckerBERT, eq. 7). Input (..., n1·n2), output (..., m1·m2).
    """

    kind = "kronecker_linear"

    def __init__(self, *, bias: bool = True, **fields: Any) -> None:
        super().__init__(**fields)
        self.out_features, self.in_features = self.shape.matrix
        options = {"device": fields.get("device"), "dtype": fields.get("dtype")}
        self.bias = empty(self.out_features, **options) if bias else None

    @classmethod
    def of(
        cls,
        value: KroneckerSum,
        *,
        bias: Float[Tensor, " m"] | None = None,
        scales: Float[Tensor, " terms"] | None = None,
    ) -> KroneckerLinear:
        """Return a layer that computes with the factors of `value`."""
        shape = value.shape
        layer = cls(
            bias=bias is not None,
            left=(shape.m1, shape.n1),
            right=(shape.m2, shape.n2),
            terms=value.terms,
            scales=scales is not None,
            device="meta",
        )
        layer.fill(value, scales=scales)
        if bias is not None:
            layer.bias = nn.Parameter(bias.detach().clone())
        return layer

    def forward(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        """Apply the layer."""
        if x.shape[-1] != self.in_features:
            raise KronpressError(f"the input has {x.shape[-1]} features; this layer takes {self.in_features}")
        contract = _right_first if self.shape.right_first else _left_first
        y = contract(x.reshape(-1, self.shape.n1, self.shape.n2), *self.factors())
        y = y.reshape(*x.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias.to(y.dtype)  # which autocast may have made narrower

    def to_dense(self) -> nn.Linear:
        """Return the linear layer with the factors multiplied out."""
        return dense.linear(self.dense_weight(), bias=self.bias)

    def spec(self) -> dict[str, Any]:
        """Return the factors' spec and whether there is a bias."""
        return super().spec() | {"bias": self.bias is not None}

    @property
    def flops_per_token(self) -> int:
        """Two for each multiply-add of the cheaper order, all terms."""
        return 2 * self.shape.multiply_adds(terms=self.terms, right_first=self.shape.right_first)

    def extra_repr(self) -> str:
        """Return the factors as the printed model shows them."""
        shape = self.shape
        return (
            f"in={self.in_features}, out={self.out_features}, left={shape.m1}×{shape.n1}, "
            f"right={shape.m2}×{shape.n2}, terms={self.terms}, scales={self.scales is not None}"
        )


@LAYERS.register("kronecker_embedding")
class KroneckerEmbedding(KroneckerFactors):
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
        cls, value: KroneckerSum, *, padding_idx: int | None = None, scales: Float[Tensor, " terms"] | None = None
    ) -> KroneckerEmbedding:
        """Return a table that computes with the factors of `value`."""
        shape = value.shape
        layer = cls(
            padding_idx=padding_idx,
            left=(shape.m1, shape.n1),
            right=(shape.m2, shape.n2),
            terms=value.terms,
            scales=scales is not None,
            device="meta",
        )
        layer.fill(value, scales=scales)
        return layer

    def forward(self, ids: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch dim"]:
        """Look the rows up."""
        left, right = self.factors()
        rows_left = left[:, ids // self.shape.m2]
        rows_right = right[:, ids % self.shape.m2]
        with torch.autocast(ids.device.type, enabled=False):  # a look-up keeps the precision of the table
            return torch.einsum("t...i,t...j->...ij", rows_left, rows_right).flatten(-2)

    def as_head(self, *, bias: Float[Tensor, " m"] | None = None) -> KroneckerLinear:
        """Return the tied output head: a linear layer whose factors are the very parameters of this table."""
        head = KroneckerLinear(bias=bias is not None, **self._shared_fields(), device="meta")
        head.left, head.right, head.scales = self.left, self.right, self.scales
        if bias is not None:
            head.bias = bias if isinstance(bias, nn.Parameter) else nn.Parameter(bias)
        return head

    def _shared_fields(self) -> dict[str, Any]:
        return {key: value for key, value in super().spec().items() if key != "kind"}

    def to_dense(self) -> nn.Embedding:
        """Return the table with the factors multiplied out."""
        table: nn.Embedding = nn.Embedding.from_pretrained(
            self.dense_weight().detach(), freeze=False, padding_idx=self.padding_idx
        )
        return table

    def spec(self) -> dict[str, Any]:
        """Return the factors' spec and the padding index."""
        return super().spec() | {"padding_idx": self.padding_idx}

    @property
    def flops_per_token(self) -> int:
        """Two for each number of the row and term."""
        return 2 * self.terms * self.embedding_dim

    def extra_repr(self) -> str:
        """Return the factors as the printed model shows them."""
        shape = self.shape
        return (
            f"{self.num_embeddings}, {self.embedding_dim}, left={shape.m1}×{shape.n1}, "
            f"right={shape.m2}×{shape.n2}, terms={self.terms}"
        )


def _right_first(
    x: Float[Tensor, "batch n1 n2"], left: Float[Tensor, "terms m1 n1"], right: Float[Tensor, "terms m2 n2"]
) -> Float[Tensor, "batch m1 m2"]:
    (terms, m1, n1), (_, m2, n2) = left.shape, right.shape
    z = x @ right.reshape(terms * m2, n2).T  # batch n1 terms·m2
    z = z.view(-1, n1, terms, m2).permute(0, 3, 2, 1).reshape(-1, m2, terms * n1)
    return (z @ left.transpose(1, 2).reshape(terms * n1, m1)).transpose(1, 2)


def _left_first(
    x: Float[Tensor, "batch n1 n2"], left: Float[Tensor, "terms m1 n1"], right: Float[Tensor, "terms m2 n2"]
) -> Float[Tensor, "batch m1 m2"]:
    (terms, m1, n1), (_, m2, n2) = left.shape, right.shape
    z = x.transpose(1, 2) @ left.reshape(terms * m1, n1).T  # batch n2 terms·m1
    z = z.view(-1, n2, terms, m1).permute(0, 3, 2, 1).reshape(-1, m1, terms * n2)
    return z @ right.transpose(1, 2).reshape(terms * n2, m2)
