"""A linear layer over a product of two thin matrices."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from kronpress.layers import dense
from kronpress.layers.structured import LAYERS, InnerProducts, StructuredLayer, empty
from kronpress.linalg import LowRank


@LAYERS.register("low_rank_linear")
class LowRankLinear(StructuredLayer):
    """y = left · (right · x) + bias with left (m, rank) and right (rank, n)."""

    kind = "low_rank_linear"

    def __init__(
        self,
        *,
        in_features: int,
        out_features: int,
        rank: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features, self.rank = in_features, out_features, rank
        self.left = empty(out_features, rank, device=device, dtype=dtype)
        self.right = empty(rank, in_features, device=device, dtype=dtype)
        self.bias = empty(out_features, device=device, dtype=dtype) if bias else None

    @classmethod
    def of(cls, value: LowRank, *, bias: Float[Tensor, " m"] | None = None) -> LowRankLinear:
        """Return a layer that computes with the factors of `value`."""
        (out_features, rank), in_features = value.left.shape, value.right.shape[1]
        layer = cls(in_features=in_features, out_features=out_features, rank=rank, bias=bias is not None, device="meta")
        layer.left = nn.Parameter(value.left.contiguous())
        layer.right = nn.Parameter(value.right.contiguous())
        if bias is not None:
            layer.bias = nn.Parameter(bias.detach().clone())
        return layer

    def forward(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        """Apply the layer."""
        return F.linear(F.linear(x, self.right), self.left, self.bias)

    def to_dense(self) -> nn.Linear:
        """Return the linear layer with the factors multiplied out."""
        return dense.linear(self.left @ self.right, bias=self.bias)

    def spec(self) -> dict[str, Any]:
        """Return kind, dimensions, rank and whether there is a bias."""
        names = ("kind", "in_features", "out_features", "rank")
        return {name: getattr(self, name) for name in names} | {"bias": self.bias is not None}

    @property
    def matrix(self) -> tuple[int, int]:
        """The (rows, columns) of the product."""
        return self.out_features, self.in_features

    @property
    def inner_products(self) -> InnerProducts:
        """Those with each of the two factors."""
        return [(self.in_features, self.rank), (self.rank, self.out_features)]

    def extra_repr(self) -> str:
        """Return the dimensions as the printed model shows them."""
        return f"in={self.in_features}, out={self.out_features}, rank={self.rank}"
