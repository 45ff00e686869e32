"""A linear layer over two block-diagonal factors with a permutation around one of them."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float
from pydantic import model_validator
from torch import Tensor, nn

from kronpress.errors import KronpressError
from kronpress.layers import dense
from kronpress.layers.formats import TensorSpec
from kronpress.layers.specs import SPECS, Device, DType, InnerProducts, Size
from kronpress.layers.structured import LinearSpec, StructuredLayer, empty, on_grids
from kronpress.linalg import MonarchMatrix, expand_monarch, require_blocks


@SPECS.enroll
class MonarchLinearSpec(LinearSpec):
    """The form of a `MonarchLinear`.

    Attributes:
        in_features: columns of the matrix; a multiple of `blocks`.
        out_features: rows of the matrix; a multiple of `blocks`.
        blocks: how many blocks each of the two factors has.
        rank: that of each of the blocks × blocks sub-blocks.
    """

    kind: ClassVar[str] = "monarch_linear"

    in_features: Size
    out_features: Size
    blocks: Size
    rank: Size = 1

    @model_validator(mode="after")
    def _has_blocks(self) -> MonarchLinearSpec:
        require_blocks(self.matrix, blocks=self.blocks)
        return self

    @property
    def matrix(self) -> tuple[int, int]:
        """The (rows, columns) of the product."""
        return self.out_features, self.in_features

    @property
    def middle(self) -> int:
        """The outputs of a block of R, which are as many as the inputs of a block of L."""
        return self.blocks * self.rank

    @property
    def own_tensors(self) -> dict[str, TensorSpec]:
        """The blocks of the two factors, and the bias."""
        tensors = {
            "left": self.tensor(self.blocks, self.out_features // self.blocks, self.middle),
            "right": self.tensor(self.blocks, self.middle, self.in_features // self.blocks),
        }
        return tensors | ({"bias": self.tensor(self.out_features)} if self.bias else {})

    @property
    def inner_products(self) -> InnerProducts:
        """Those with the blocks of R, then with those of L."""
        return [(self.in_features // self.blocks, self.blocks * self.middle), (self.middle, self.out_features)]

    def build(self, *, device: Device = None, dtype: DType = None) -> MonarchLinear:
        """Return a layer of this form whose numbers are not set."""
        return on_grids(MonarchLinear(self, device=device, dtype=dtype), self)


class MonarchLinear(StructuredLayer):
    """y = P · L · Pᵀ · R x + bias with block-diagonal L and R (Dao et al., 2022, arXiv 2204.00595).

    Block k of R reads the run k of the inputs, and gives `rank` numbers to each block of L; P is the permutation that
    deals them out. Block l of L reads what all blocks of R gave to it, and writes the outputs l, l + blocks, and so on.
    Rank 1 is the paper's. Input (..., in_features), output (..., out_features).

    Attributes:
        left: (blocks, out_features/blocks, blocks·rank), the blocks of L.
        right: (blocks, blocks·rank, in_features/blocks), the blocks of R.
    """

    def __init__(self, spec: MonarchLinearSpec, *, device: Device = None, dtype: DType = None) -> None:
        super().__init__()
        self.in_features, self.out_features = spec.in_features, spec.out_features
        self.blocks, self.rank = spec.blocks, spec.rank
        tensors = spec.own_tensors
        self.left = empty(*tensors["left"].shape, device=device, dtype=dtype)
        self.right = empty(*tensors["right"].shape, device=device, dtype=dtype)
        self.bias = empty(self.out_features, device=device, dtype=dtype) if spec.bias else None

    @classmethod
    def of(cls, value: MonarchMatrix, *, bias: Float[Tensor, " m"] | None = None) -> MonarchLinear:
        """Return a layer that computes with the factors of `value`."""
        (blocks, p, _), q = value.left.shape, value.right.shape[2]
        spec = MonarchLinearSpec(
            in_features=blocks * q, out_features=blocks * p, blocks=blocks, rank=value.rank, bias=bias is not None
        )
        layer = cls(spec, device="meta")
        layer.left, layer.right = nn.Parameter(value.left.contiguous()), nn.Parameter(value.right.contiguous())
        if bias is not None:
            layer.bias = nn.Parameter(bias.detach().clone())
        return layer

    def forward(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        """Apply the layer."""
        if x.shape[-1] != self.in_features:
            raise KronpressError(f"the input has {x.shape[-1]} features; this layer takes {self.in_features}")
        runs = x.reshape(-1, self.blocks, self.in_features // self.blocks).transpose(0, 1)  # k batch q
        z = runs @ self.right.mT  # k batch l·rank
        z = z.unflatten(2, (self.blocks, self.rank)).permute(2, 1, 0, 3).flatten(2)  # l batch k·rank
        y: Tensor = z @ self.left.mT  # l batch p
        y = y.permute(1, 2, 0).reshape(*x.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias.to(y.dtype)  # which autocast may have made narrower

    def to_dense(self) -> nn.Linear:
        """Return the linear layer with the factors multiplied out."""
        return dense.linear(expand_monarch(self.left, self.right), bias=self.bias)

    @property
    def spec(self) -> MonarchLinearSpec:
        """The form of the layer as it is now."""
        return MonarchLinearSpec(
            in_features=self.in_features,
            out_features=self.out_features,
            blocks=self.blocks,
            rank=self.rank,
            bias=self.bias is not None,
            **self.grids,
        )

    def extra_repr(self) -> str:
        """Return the dimensions as the printed model shows them."""
        return f"in={self.in_features}, out={self.out_features}, blocks={self.blocks}, rank={self.rank}"
