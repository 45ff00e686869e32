"""A linear layer over a product of two thin matrices."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from kronpress.layers import dense
from kronpress.layers.formats import TensorSpec
from kronpress.layers.specs import SPECS, Device, DType, InnerProducts, Size
from kronpress.layers.structured import LinearSpec, StructuredLayer, empty, on_grids
from kronpress.linalg import LowRank


@SPECS.enroll
class LowRankLinearSpec(LinearSpec):
    """The form of a `LowRankLinear`."""

    kind: ClassVar[str] = "low_rank_linear"

    in_features: Size
    out_features: Size
    rank: Size

    @property
    def matrix(self) -> tuple[int, int]:
        """The (rows, columns) of the product."""
        return self.out_features, self.in_features

    @property
    def own_tensors(self) -> dict[str, TensorSpec]:
        """The two factors and the bias."""
        tensors = {
            "left": self.tensor(self.out_features, self.rank),
            "right": self.tensor(self.rank, self.in_features),
        }
        return tensors | ({"bias": self.tensor(self.out_features)} if self.bias else {})

    @property
    def inner_products(self) -> InnerProducts:
        """Those with each of the two factors."""
        return [(self.in_features, self.rank), (self.rank, self.out_features)]

    def build(self, *, device: Device = None, dtype: DType = None) -> LowRankLinear:
        """Return a layer of this form whose numbers are not set."""
        return on_grids(LowRankLinear(self, device=device, dtype=dtype), self)


class LowRankLinear(StructuredLayer):
    """y = left · (right · x) + bias with left (m, rank) and right (rank, n)."""

    def __init__(self, spec: LowRankLinearSpec, *, device: Device = None, dtype: DType = None) -> None:
        super().__init__()
        self.in_features, self.out_features, self.rank = spec.in_features, spec.out_features, spec.rank
        self.left = empty(self.out_features, self.rank, device=device, dtype=dtype)
        self.right = empty(self.rank, self.in_features, device=device, dtype=dtype)
        self.bias = empty(self.out_features, device=device, dtype=dtype) if spec.bias else None

    @classmethod
    def of(cls, value: LowRank, *, bias: Float[Tensor, " m"] | None = None) -> LowRankLinear:
        """Return a layer that computes with the factors of `value`."""
        (out_features, rank), in_features = value.left.shape, value.right.shape[1]
        spec = LowRankLinearSpec(in_features=in_features, out_features=out_features, rank=rank, bias=bias is not None)
        layer = cls(spec, device="meta")
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

    @property
    def spec(self) -> LowRankLinearSpec:
        """The form of the layer as it is now."""
        rows, columns, rank = self.out_features, self.in_features, self.rank
        return LowRankLinearSpec(
            in_features=columns, out_features=rows, rank=rank, bias=self.bias is not None, **self.grids
        )

    def extra_repr(self) -> str:
        """Return the dimensions as the printed model shows them."""
        return f"in={self.in_features}, out={self.out_features}, rank={self.rank}"
