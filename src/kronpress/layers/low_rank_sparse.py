"""A linear layer over a product of two thin matrices, with some outputs of its own beside it."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from kronpress.errors import KronpressError
from kronpress.layers import dense
from kronpress.layers.formats import TensorSpec, index_spec, order_dtype
from kronpress.layers.specs import SPECS, Device, DType, InnerProducts, Size
from kronpress.layers.structured import LinearSpec, StructuredLayer, empty, on_grids
from kronpress.linalg import LowRankSparse


@SPECS.enroll
class LowRankSparseLinearSpec(LinearSpec):
    """The form of a `LowRankSparseLinear`.

    Attributes:
        in_features: columns of the matrix.
        out_features: rows of the matrix.
        rank: of the product.
        rows: how many rows stand beside it.
    """

    kind: ClassVar[str] = "low_rank_sparse_linear"

    in_features: Size
    out_features: Size
    rank: Size
    rows: Size

    @model_validator(mode="after")
    def _has_rows(self) -> LowRankSparseLinearSpec:
        if self.rows > self.out_features:
            raise KronpressError(f"rows is {self.rows}, and the matrix has {self.out_features}; choose fewer")
        return self

    @property
    def matrix(self) -> tuple[int, int]:
        """The (rows, columns) of the product."""
        return self.out_features, self.in_features

    @property
    def own_tensors(self) -> dict[str, TensorSpec]:
        """The two factors, the rows beside them and which they are, and the bias."""
        tensors = {
            "left": self.tensor(self.out_features, self.rank),
            "right": self.tensor(self.rank, self.in_features),
            "sparse": self.tensor(self.rows, self.in_features),
            "kept": index_spec(self.rows, of=self.out_features),
        }
        return tensors | ({"bias": self.tensor(self.out_features)} if self.bias else {})

    @property
    def inner_products(self) -> InnerProducts:
        """Those with each of the two factors, and with the rows."""
        return [(self.in_features, self.rank), (self.rank, self.out_features), (self.in_features, self.rows)]

    def build(self, *, device: Device = None, dtype: DType = None) -> LowRankSparseLinear:
        """Return a layer of this form whose numbers are not set."""
        return on_grids(LowRankSparseLinear(self, device=device, dtype=dtype), self)


class LowRankSparseLinear(StructuredLayer):
    """y = (left · right + S) x + bias, where S is zero but for some rows (LoSparse, Li et al., 2023, arXiv 2306.11222).

    A row of S belongs to one output neuron. The paper writes inputs on the left of the matrix, and so has columns.

    Attributes:
        left: (out_features, rank).
        right: (rank, in_features).
        sparse: (rows, in_features), the rows of S that are not zero.
        kept: (rows,) integers: the outputs that they belong to.
    """

    kept: Tensor

    def __init__(self, spec: LowRankSparseLinearSpec, *, device: Device = None, dtype: DType = None) -> None:
        super().__init__()
        self.in_features, self.out_features = spec.in_features, spec.out_features
        self.rank, self.rows = spec.rank, spec.rows
        self.left = empty(self.out_features, self.rank, device=device, dtype=dtype)
        self.right = empty(self.rank, self.in_features, device=device, dtype=dtype)
        self.sparse = empty(self.rows, self.in_features, device=device, dtype=dtype)
        self.bias = empty(self.out_features, device=device, dtype=dtype) if spec.bias else None
        self.register_buffer("kept", torch.arange(self.rows, dtype=order_dtype(self.out_features), device=device))

    @classmethod
    def of(cls, value: LowRankSparse, *, bias: Float[Tensor, " m"] | None = None) -> LowRankSparseLinear:
        """Return a layer that computes with the numbers of `value`."""
        (out_features, rank), (rows, in_features) = value.left.shape, value.sparse.shape
        spec = LowRankSparseLinearSpec(
            in_features=in_features, out_features=out_features, rank=rank, rows=rows, bias=bias is not None
        )
        layer = cls(spec, device="meta")
        for name in ("left", "right", "sparse"):
            setattr(layer, name, nn.Parameter(getattr(value, name).contiguous()))
        layer.kept = value.kept.to(value.left.device, order_dtype(out_features))
        if bias is not None:
            layer.bias = nn.Parameter(bias.detach().clone())
        return layer

    def forward(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        """Apply the layer."""
        y = F.linear(F.linear(x, self.right), self.left, self.bias)
        return y.index_add(-1, self.kept.long(), F.linear(x, self.sparse))

    def to_dense(self) -> nn.Linear:
        """Return the linear layer with the factors multiplied out and the rows added."""
        weight = (self.left @ self.right).index_add(0, self.kept.long(), self.sparse)
        return dense.linear(weight, bias=self.bias)

    @property
    def spec(self) -> LowRankSparseLinearSpec:
        """The form of the layer as it is now."""
        return LowRankSparseLinearSpec(
            in_features=self.in_features,
            out_features=self.out_features,
            rank=self.rank,
            rows=self.rows,
            bias=self.bias is not None,
            **self.grids,
        )

    def extra_repr(self) -> str:
        """Return the dimensions as the printed model shows them."""
        return f"in={self.in_features}, out={self.out_features}, rank={self.rank}, rows={self.rows}"
