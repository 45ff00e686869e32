"""Token tables over factors, and the output head that reads the same factors."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from pydantic import SerializeAsAny, StrictBool
from torch import Tensor, nn

from kronpress.layers import dense
from kronpress.layers.dense import ScaledEmbedding, scaled
from kronpress.layers.formats import TensorSpec
from kronpress.layers.specs import SPECS, Device, DType, InnerProducts, LayerSpec, TableSpec
from kronpress.layers.structured import StructuredLayer, StructuredSpec, empty, on_grids

_ROWS = 4096  # of a dense table that are looked at together


class FactoredTableSpec(StructuredSpec, TableSpec):
    """The form of a token table that computes with factors."""

    @property
    def score_products(self) -> InnerProducts:
        """The inner products that an output head over the table takes for one token."""
        raise NotImplementedError

    def build(self, *, device: Device = None, dtype: DType = None) -> FactoredEmbedding:
        """Return a table of this form whose numbers are not set."""
        raise NotImplementedError


class FactoredEmbedding(StructuredLayer):
    """A look-up table W (num_embeddings, embedding_dim) that is never formed, neither to look up nor to score.

    Attributes:
        scale: what its rows are multiplied by as they are looked up; scores do without it.
    """

    num_embeddings: int
    embedding_dim: int
    padding_idx: int | None
    scale: float = 1.0

    def forward(self, x: Tensor, *, score: bool = False) -> Tensor:
        """Look up rows, or score vectors; both by a call, which is where tools bring in offloaded factors."""
        return self.scores(x) if score else scaled(self.rows(x), self.scale)

    @abstractmethod
    def rows(self, ids: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch dim"]:
        """Look the rows up."""

    @abstractmethod
    def scores(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch vocabulary"]:
        """Return x · Wᵀ, what an output head over this table computes."""

    @abstractmethod
    def dense_weight(self) -> Float[Tensor, "vocabulary dim"]:
        """Return the table."""

    @property
    @abstractmethod
    def spec(self) -> FactoredTableSpec:
        """The form of the table as it is now."""

    @torch.no_grad()
    def distance(self, weight: Float[Tensor, "vocabulary dim"]) -> float:
        """Return the Frobenius norm of the difference between a dense table and this one."""
        ids = torch.arange(self.num_embeddings, device=weight.device)
        squares = [(weight[part] - self.rows(part)).double().square().sum() for part in ids.split(_ROWS)]
        return float(torch.stack(squares).sum().sqrt())

    def to_dense(self) -> nn.Embedding:
        """Return the table with the factors multiplied out."""
        kind = nn.Embedding if self.scale == 1.0 else ScaledEmbedding
        table: nn.Embedding = kind.from_pretrained(
            self.dense_weight().detach().clone(), freeze=False, padding_idx=self.padding_idx
        )
        if isinstance(table, ScaledEmbedding):
            table.scale = self.scale
        return table


@SPECS.enroll
class FactoredHeadSpec(StructuredSpec):
    """The form of a `FactoredHead`."""

    kind: ClassVar[str] = "factored_head"

    table: SerializeAsAny[FactoredTableSpec]
    bias: StrictBool = False

    @property
    def matrix(self) -> tuple[int, int]:
        """The size of the vocabulary and of a row."""
        return self.table.matrix

    @property
    def own_tensors(self) -> dict[str, TensorSpec]:
        """The bias."""
        return {"bias": self.tensor(self.matrix[0])} if self.bias else {}

    @property
    def inside(self) -> dict[str, LayerSpec]:
        """The table."""
        return {"table": self.table}

    @property
    def inner_products(self) -> InnerProducts:
        """Those of the scores."""
        return self.table.score_products

    def build(self, *, device: Device = None, dtype: DType = None) -> FactoredHead:
        """Return a head of this form, over a table of its own, whose numbers are not set."""
        return on_grids(FactoredHead(self, device=device, dtype=dtype), self)


class FactoredHead(StructuredLayer):
    """The output head over a factored table: scores = x · Wᵀ + bias.

    A tied head holds the very table of the embedding, an untied one a table of its own.
    """

    def __init__(self, spec: FactoredHeadSpec, *, device: Device = None, dtype: DType = None) -> None:
        super().__init__()
        self.table = spec.table.build(device=device, dtype=dtype)
        self.bias = empty(spec.matrix[0], device=device, dtype=dtype) if spec.bias else None

    @classmethod
    def of(cls, table: FactoredEmbedding, *, bias: Float[Tensor, " vocabulary"] | None = None) -> FactoredHead:
        """Return a head that shares `table`, and `bias` where that is a parameter."""
        head = cls(FactoredHeadSpec(table=table.spec), device="meta")
        head.table = table
        if bias is not None:
            head.bias = bias if isinstance(bias, nn.Parameter) else nn.Parameter(bias)
        return head

    @property
    def spec(self) -> FactoredHeadSpec:
        """The form of the head as it is now."""
        return FactoredHeadSpec(table=self.table.spec, bias=self.bias is not None, **self.grids)

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch vocabulary"]:
        """Score every row of the table."""
        y: Tensor = self.table(x, score=True)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def to_dense(self) -> nn.Linear:
        """Return the linear layer with the factors multiplied out."""
        return dense.linear(self.table.dense_weight(), bias=self.bias)

    def extra_repr(self) -> str:
        """Return the size as the printed model shows it."""
        return f"in={self.matrix[1]}, out={self.matrix[0]}"
