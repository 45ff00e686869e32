"""Token tables over factors, and the output head that reads the same factors."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from kronpress.layers import dense
from kronpress.layers.structured import LAYERS, InnerProducts, StructuredLayer, built, empty

_ROWS = 4096  # of a dense table that are looked at together


class FactoredEmbedding(StructuredLayer):
    """A look-up table W (num_embeddings, embedding_dim) that is never formed, neither to look up nor to score."""

    num_embeddings: int
    embedding_dim: int
    padding_idx: int | None

    def forward(self, x: Tensor, *, score: bool = False) -> Tensor:
        """Look up rows, or score vectors; both by a call, which is where tools bring in offloaded factors."""
        return self.scores(x) if score else self.rows(x)

    @abstractmethod
    def rows(self, ids: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch dim"]:
        """Look the rows up."""

    @abstractmethod
    def scores(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch vocabulary"]:
        """Return x · Wᵀ, what an output head over this table computes."""

    @property
    @abstractmethod
    def score_products(self) -> InnerProducts:
        """The (length, count) of the inner products that `scores` takes for one token."""

    @abstractmethod
    def dense_weight(self) -> Float[Tensor, "vocabulary dim"]:
        """Return the table."""

    @property
    def matrix(self) -> tuple[int, int]:
        """The size of the vocabulary and of a row."""
        return self.num_embeddings, self.embedding_dim

    @torch.no_grad()
    def distance(self, weight: Float[Tensor, "vocabulary dim"]) -> float:
        """Return the Frobenius norm of the difference between a dense table and this one."""
        ids = torch.arange(self.num_embeddings, device=weight.device)
        squares = [(weight[part] - self(part)).double().square().sum() for part in ids.split(_ROWS)]
        return float(torch.stack(squares).sum().sqrt())

    def to_dense(self) -> nn.Embedding:
        """Return the table with the factors multiplied out."""
        table: nn.Embedding = nn.Embedding.from_pretrained(
            self.dense_weight().detach(), freeze=False, padding_idx=self.padding_idx
        )
        return table


@LAYERS.register("factored_head")
class FactoredHead(StructuredLayer):
    """The output head over a factored table: scores = x · Wᵀ + bias.

    A tied head holds the very table of the embedding, an untied one a table of its own.
    """

    kind = "factored_head"

    def __init__(
        self,
        *,
        table: dict[str, Any] | FactoredEmbedding,
        bias: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        own = built(table, device=device, dtype=dtype)
        assert isinstance(own, FactoredEmbedding), f"a head over {own}"
        self.table = own
        self.bias = empty(own.num_embeddings, device=device, dtype=dtype) if bias else None

    @classmethod
    def of(cls, table: FactoredEmbedding, *, bias: Float[Tensor, " vocabulary"] | None = None) -> FactoredHead:
        """Return a head that shares `table`, and `bias` where that is a parameter."""
        head = cls(table=table)
        if bias is not None:
            head.bias = bias if isinstance(bias, nn.Parameter) else nn.Parameter(bias)
        return head

    @property
    def matrix(self) -> tuple[int, int]:
        """The size of the vocabulary and of a row."""
        return self.table.matrix

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch vocabulary"]:
        """Score every row of the table."""
        y: Tensor = self.table(x, score=True)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def to_dense(self) -> nn.Linear:
        """Return the linear layer with the factors multiplied out."""
        return dense.linear(self.table.dense_weight(), bias=self.bias)

    def spec(self) -> dict[str, Any]:
        """Return the spec of the table and whether there is a bias."""
        return {"kind": self.kind, "table": self.table.spec(), "bias": self.bias is not None}

    @property
    def inner_products(self) -> InnerProducts:
        """Those of the scores."""
        return self.table.score_products

    def extra_repr(self) -> str:
        """Return the size as the printed model shows it."""
        return f"in={self.matrix[1]}, out={self.matrix[0]}"
