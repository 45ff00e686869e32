"""A linear layer that computes some of its outputs from some of its inputs."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float, Int
from pydantic import model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from kronpress.errors import KronpressError
from kronpress.layers import dense
from kronpress.layers.formats import TensorFormat, TensorSpec, order_dtype
from kronpress.layers.specs import SPECS, Device, DType, InnerProducts, Size
from kronpress.layers.structured import LinearSpec, StructuredLayer, empty, on_grids


@SPECS.enroll
class SubmatrixLinearSpec(LinearSpec):
    """The form of a `SubmatrixLinear`.

    Attributes:
        rows: how many outputs are computed.
        columns: how many inputs are read.
    """

    kind: ClassVar[str] = "submatrix_linear"

    in_features: Size
    out_features: Size
    rows: Size
    columns: Size

    @model_validator(mode="after")
    def _is_part(self) -> SubmatrixLinearSpec:
        if self.rows > self.out_features or self.columns > self.in_features:
            raise KronpressError(
                f"{self.rows} × {self.columns} numbers are no part of {self.out_features} × {self.in_features}; give "
                "at most as many rows and columns"
            )
        return self

    @property
    def matrix(self) -> tuple[int, int]:
        """The (rows, columns) of the whole matrix, zeros included."""
        return self.out_features, self.in_features

    @property
    def own_tensors(self) -> dict[str, TensorSpec]:
        """The numbers that are not zero, where they stand, and the bias."""
        tensors = {"submatrix": self.tensor(self.rows, self.columns)}
        for name, (count, size) in self.parts.items():
            tensors[name] = TensorSpec((count,), TensorFormat.of(order_dtype(size)))
        return tensors | ({"bias": self.tensor(self.out_features)} if self.bias else {})

    @property
    def parts(self) -> dict[str, tuple[int, int]]:
        """The name of the index of each side that is not whole, with how many of how many it names."""
        sides = {"row_index": (self.rows, self.out_features), "column_index": (self.columns, self.in_features)}
        return {name: (count, size) for name, (count, size) in sides.items() if count < size}

    @property
    def inner_products(self) -> InnerProducts:
        """One for each computed output, with the inputs that are read."""
        return [(self.columns, self.rows)]

    def build(self, *, device: Device = None, dtype: DType = None) -> SubmatrixLinear:
        """Return a layer of this form whose numbers are not set."""
        return on_grids(SubmatrixLinear(self, device=device, dtype=dtype), self)


class SubmatrixLinear(StructuredLayer):
    """y = W x + bias with a matrix W that is zero outside of some rows and columns.

    Attributes:
        submatrix: (rows, columns), what is not zero.
        row_index: (rows,) which outputs are computed; None: all.
        column_index: (columns,) which inputs are read; None: all.
    """

    row_index: Tensor | None
    column_index: Tensor | None

    def __init__(self, spec: SubmatrixLinearSpec, *, device: Device = None, dtype: DType = None) -> None:
        super().__init__()
        self.out_features, self.in_features = spec.matrix
        self.submatrix = empty(spec.rows, spec.columns, device=device, dtype=dtype)
        for name in ("row_index", "column_index"):
            count, size = spec.parts.get(name, (0, 0))
            index = torch.arange(count, dtype=order_dtype(size), device=device) if count else None
            self.register_buffer(name, index)
        self.bias = empty(self.out_features, device=device, dtype=dtype) if spec.bias else None

    @classmethod
    def of(
        cls,
        weight: Float[Tensor, "m n"],
        *,
        rows: Int[Tensor, " some"] | None = None,
        columns: Int[Tensor, " few"] | None = None,
        bias: Float[Tensor, " m"] | None = None,
    ) -> SubmatrixLinear:
        """Return a layer with these rows and columns of a matrix, all by default, and zeros elsewhere."""
        kept = weight if rows is None else weight[rows]
        kept = kept if columns is None else kept[:, columns]
        (out_features, in_features), (count, width) = weight.shape, kept.shape
        spec = SubmatrixLinearSpec(
            in_features=in_features, out_features=out_features, rows=count, columns=width, bias=bias is not None
        )
        layer = cls(spec, device="meta")
        layer.submatrix = nn.Parameter(kept.detach().clone().contiguous())
        for name, index in (("row_index", rows), ("column_index", columns)):
            if index is not None and name in spec.parts:
                setattr(layer, name, index.to(weight.device, order_dtype(spec.parts[name][1])))
        if bias is not None:
            layer.bias = nn.Parameter(bias.detach().clone())
        return layer

    @property
    def spec(self) -> SubmatrixLinearSpec:
        """The form of the layer as it is now."""
        rows, columns = self.submatrix.shape
        return SubmatrixLinearSpec(
            in_features=self.in_features,
            out_features=self.out_features,
            rows=rows,
            columns=columns,
            bias=self.bias is not None,
            **self.grids,
        )

    def forward(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        """Apply the layer."""
        read = x if self.column_index is None else x[..., self.column_index.long()]
        if self.row_index is None:
            return F.linear(read, self.submatrix, self.bias)
        y = F.linear(read, self.submatrix)
        y = y.new_zeros(*y.shape[:-1], self.out_features).index_copy(-1, self.row_index.long(), y)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def to_dense(self) -> nn.Linear:
        """Return the linear layer with the zeros written out."""
        weight = self.submatrix.new_zeros(self.out_features, self.in_features)
        rows, columns = (
            torch.arange(size, device=weight.device) if index is None else index.long()
            for index, size in ((self.row_index, self.out_features), (self.column_index, self.in_features))
        )
        weight[rows[:, None], columns] = self.submatrix.detach()
        return dense.linear(weight, bias=self.bias)

    def extra_repr(self) -> str:
        """Return the dimensions as the printed model shows them."""
        rows, columns = self.submatrix.shape
        return f"in={self.in_features} (reads {columns}), out={self.out_features} (computes {rows})"
