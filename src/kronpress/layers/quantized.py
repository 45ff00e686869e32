"""Dense layers whose numbers lie on a grid, or whose inputs do."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from kronpress.layers import dense
from kronpress.layers.embedding import FactoredEmbedding, FactoredTableSpec
from kronpress.layers.formats import TensorSpec
from kronpress.layers.specs import SPECS, Device, DType, InnerProducts, Size
from kronpress.layers.structured import LinearSpec, StructuredLayer, empty, full_precision, on_grids


@SPECS.enroll
class QuantizedLinearSpec(LinearSpec):
    """The form of a `QuantizedLinear`."""

    kind: ClassVar[str] = "quantized_linear"

    in_features: Size
    out_features: Size

    @property
    def matrix(self) -> tuple[int, int]:
        """The (rows, columns) of the weight."""
        return self.out_features, self.in_features

    @property
    def own_tensors(self) -> dict[str, TensorSpec]:
        """Weight and bias."""
        weight = {"weight": self.tensor(*self.matrix)}
        return weight | ({"bias": self.tensor(self.out_features)} if self.bias else {})

    @property
    def inner_products(self) -> InnerProducts:
        """One with each row."""
        return [(self.in_features, self.out_features)]

    def build(self, *, device: Device = None, dtype: DType = None) -> QuantizedLinear:
        """Return a layer of this form whose numbers are not set."""
        return on_grids(QuantizedLinear(self, device=device, dtype=dtype), self)


class QuantizedLinear(StructuredLayer):
    """y = weight · x + bias; the weight (m, n) may lie on a grid, and so may the inputs."""

    def __init__(self, spec: QuantizedLinearSpec, *, device: Device = None, dtype: DType = None) -> None:
        super().__init__()
        self.out_features, self.in_features = spec.matrix
        self.weight = empty(*spec.matrix, device=device, dtype=dtype)
        self.bias = empty(self.out_features, device=device, dtype=dtype) if spec.bias else None

    @classmethod
    def of(cls, weight: Float[Tensor, "m n"], *, bias: Float[Tensor, " m"] | None = None) -> QuantizedLinear:
        """Return a layer that computes with copies of the given tensors, which are not on a grid yet."""
        rows, columns = weight.shape
        spec = QuantizedLinearSpec(in_features=columns, out_features=rows, bias=bias is not None)
        layer = cls(spec, device="meta")
        layer.weight = nn.Parameter(weight.detach().clone().contiguous())
        if bias is not None:
            layer.bias = nn.Parameter(bias.detach().clone())
        return layer

    @property
    def spec(self) -> QuantizedLinearSpec:
        """The form of the layer as it is now."""
        return QuantizedLinearSpec(
            in_features=self.in_features, out_features=self.out_features, bias=self.bias is not None, **self.grids
        )

    def forward(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        """Apply the layer."""
        weight = self.on_grid("weight")
        return F.linear(x, self.weight, self.bias) if weight is None else weight(times=x, bias=self.bias)

    def to_dense(self) -> nn.Linear:
        """Return the linear layer with the numbers that the codes stand for; inputs are not rounded there."""
        return dense.linear(self.weight, bias=self.bias)

    def extra_repr(self) -> str:
        """Return the dimensions as the printed model shows them."""
        return f"in={self.in_features}, out={self.out_features}"


@SPECS.enroll
class QuantizedEmbeddingSpec(FactoredTableSpec):
    """The form of a `QuantizedEmbedding`."""

    kind: ClassVar[str] = "quantized_embedding"

    num_embeddings: Size
    embedding_dim: Size

    @property
    def matrix(self) -> tuple[int, int]:
        """The (rows, columns) of the table."""
        return self.num_embeddings, self.embedding_dim

    @property
    def own_tensors(self) -> dict[str, TensorSpec]:
        """The table."""
        return {"weight": self.tensor(*self.matrix)}

    @property
    def inner_products(self) -> InnerProducts:
        """None: a row is read as it is."""
        return []

    @property
    def score_products(self) -> InnerProducts:
        """One with each row."""
        return [(self.embedding_dim, self.num_embeddings)]

    def build(self, *, device: Device = None, dtype: DType = None) -> QuantizedEmbedding:
        """Return a table of this form whose numbers are not set."""
        return on_grids(QuantizedEmbedding(self, device=device, dtype=dtype), self)


class QuantizedEmbedding(FactoredEmbedding):
    """A look-up table whose numbers may lie on a grid; the head that is tied to it reads the same codes."""

    def __init__(self, spec: QuantizedEmbeddingSpec, *, device: Device = None, dtype: DType = None) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = spec.matrix
        self.padding_idx, self.scale = spec.padding_idx, spec.scale
        self.weight = empty(*spec.matrix, device=device, dtype=dtype)

    @classmethod
    def of(cls, weight: Float[Tensor, "vocabulary dim"], *, padding_idx: int | None = None) -> QuantizedEmbedding:
        """Return a table with a copy of the given numbers, which are not on a grid yet."""
        rows, columns = weight.shape
        spec = QuantizedEmbeddingSpec(num_embeddings=rows, embedding_dim=columns, padding_idx=padding_idx)
        table = cls(spec, device="meta")
        table.weight = nn.Parameter(weight.detach().clone().contiguous())
        return table

    @property
    def spec(self) -> QuantizedEmbeddingSpec:
        """The form of the table as it is now."""
        return QuantizedEmbeddingSpec(
            num_embeddings=self.num_embeddings,
            embedding_dim=self.embedding_dim,
            padding_idx=self.padding_idx,
            scale=self.scale,
            **self.grids,
        )

    def rows(self, ids: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch dim"]:
        """Look the rows up."""
        weight = self.on_grid("weight")
        with full_precision(ids.device):
            return F.embedding(ids, self.weight) if weight is None else weight(rows=ids)

    def scores(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch vocabulary"]:
        """Return x · Wᵀ."""
        weight = self.on_grid("weight")
        return F.linear(x, self.weight) if weight is None else weight(times=x)

    def dense_weight(self) -> Float[Tensor, "vocabulary dim"]:
        """Return the table."""
        weight: Tensor = self.weight
        return weight

    def extra_repr(self) -> str:
        """Return the sizes as the printed model shows them."""
        return f"{self.num_embeddings}, {self.embedding_dim}"
