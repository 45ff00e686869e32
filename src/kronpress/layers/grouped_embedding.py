"""Token tables in groups of rows, each factored in its own way."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from kronpress.layers.embedding import FactoredEmbedding
from kronpress.layers.structured import LAYERS, InnerProducts, built


@LAYERS.register("grouped_embedding")
class GroupedEmbedding(FactoredEmbedding):
    """A look-up table whose rows are those of several tables, in an order of its own.

    Frequent tokens can have a table of high rank and rare ones a table of low rank (GroupReduce, Chen et al., 2018).

    Attributes:
        groups: the tables, whose rows are numbered through.
        positions: for each token id, the number of its row.
    """

    kind = "grouped_embedding"
    positions: Tensor

    def __init__(
        self,
        *,
        groups: Sequence[dict[str, Any] | FactoredEmbedding],
        padding_idx: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.groups = nn.ModuleList(built(table, device=device, dtype=dtype) for table in groups)
        self.num_embeddings = sum(table.num_embeddings for table in self._tables)
        self.embedding_dim = self._tables[0].embedding_dim
        self.register_buffer("positions", torch.arange(self.num_embeddings, dtype=torch.int32, device=device))
        self.padding_idx = padding_idx

    @classmethod
    def of(
        cls,
        groups: Sequence[FactoredEmbedding],
        positions: Int[Tensor, " vocabulary"],
        *,
        padding_idx: int | None = None,
    ) -> GroupedEmbedding:
        """Return the table whose row `i` is row `positions[i]` of the tables one after the other."""
        layer = cls(groups=groups, padding_idx=padding_idx, device="meta")
        layer.positions = positions.to(torch.int32)
        return layer

    def rows(self, ids: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch dim"]:
        """Look the rows up, those of a group together."""
        positions, order = self.positions[ids].flatten().sort()
        starts = [0, *accumulate(table.num_embeddings for table in self._tables)]
        cuts = torch.searchsorted(positions, positions.new_tensor(starts[1:-1])).cpu()
        parts = zip(self._tables, positions.tensor_split(cuts), starts, strict=False)
        rows = torch.cat([table(part - start) for table, part, start in parts])
        return torch.empty_like(rows).index_copy(0, order, rows).view(*ids.shape, self.embedding_dim)

    def scores(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch vocabulary"]:
        """Return x · Wᵀ, group by group."""
        return torch.cat([table(x, score=True) for table in self._tables], dim=-1)[..., self.positions]

    def dense_weight(self) -> Float[Tensor, "vocabulary dim"]:
        """Return the table."""
        return torch.cat([table.dense_weight() for table in self._tables])[self.positions]

    def spec(self) -> dict[str, Any]:
        """Return kind, the specs of the groups and the padding index."""
        groups = [table.spec() for table in self._tables]
        return {"kind": self.kind, "groups": groups, "padding_idx": self.padding_idx}

    @property
    def inner_products(self) -> InnerProducts:
        """Those of the group whose rows take the most."""
        return max(self._tables, key=lambda table: table.flops_per_token).inner_products

    @property
    def score_products(self) -> InnerProducts:
        """Those of all groups."""
        return [pair for table in self._tables for pair in table.score_products]

    def extra_repr(self) -> str:
        """Return the sizes as the printed model shows them."""
        return f"{self.num_embeddings}, {self.embedding_dim}, groups={len(self.groups)}"

    @property
    def _tables(self) -> list[FactoredEmbedding]:
        return [table for table in self.groups if isinstance(table, FactoredEmbedding)]
