"""Token tables in groups of rows, each factored in its own way."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float, Int
from pydantic import Field, SerializeAsAny, model_validator
from torch import Tensor, nn

from kronpress.layers.embedding import FactoredEmbedding, FactoredTableSpec
from kronpress.layers.formats import TensorSpec, order_dtype, order_spec
from kronpress.layers.specs import SPECS, Device, DType, InnerProducts, LayerSpec, require_alike
from kronpress.layers.structured import on_grids


@SPECS.enroll
class GroupedEmbeddingSpec(FactoredTableSpec):
    """The form of a `GroupedEmbedding`."""

    kind: ClassVar[str] = "grouped_embedding"

    groups: Annotated[tuple[SerializeAsAny[FactoredTableSpec], ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _has_one_width(self) -> GroupedEmbeddingSpec:
        require_alike([group.matrix[1] for group in self.groups], "groups")
        return self

    @property
    def matrix(self) -> tuple[int, int]:
        """The rows of all groups, and their common width."""
        return sum(group.matrix[0] for group in self.groups), self.groups[0].matrix[1]

    @property
    def own_tensors(self) -> dict[str, TensorSpec]:
        """The order of the rows."""
        return {"positions": order_spec(self.matrix[0])}

    @property
    def inside(self) -> dict[str, LayerSpec]:
        """The groups."""
        return {f"groups.{i}": group for i, group in enumerate(self.groups)}

    @property
    def inner_products(self) -> InnerProducts:
        """Those of the group whose rows take the most."""
        return max(self.groups, key=lambda group: group.flops_per_token).inner_products

    @property
    def score_products(self) -> InnerProducts:
        """Those of all groups."""
        return [pair for group in self.groups for pair in group.score_products]

    def build(self, *, device: Device = None, dtype: DType = None) -> GroupedEmbedding:
        """Return a table of this form whose numbers are not set."""
        return on_grids(GroupedEmbedding(self, device=device, dtype=dtype), self)


class GroupedEmbedding(FactoredEmbedding):
    """A look-up table whose rows are those of several tables, in an order of its own.

    Frequent tokens can have a table of high rank and rare ones a table of low rank (GroupReduce, Chen et al., 2018).

    Attributes:
        groups: the tables, whose rows are numbered through.
        positions: for each token id, the number of its row.
    """

    positions: Tensor

    def __init__(self, spec: GroupedEmbeddingSpec, *, device: Device = None, dtype: DType = None) -> None:
        super().__init__()
        self.groups = nn.ModuleList(group.build(device=device, dtype=dtype) for group in spec.groups)
        self.num_embeddings, self.embedding_dim = spec.matrix
        order = torch.arange(self.num_embeddings, dtype=order_dtype(self.num_embeddings), device=device)
        self.register_buffer("positions", order)
        self.padding_idx, self.scale = spec.padding_idx, spec.scale

    @classmethod
    def of(
        cls,
        groups: Sequence[FactoredEmbedding],
        positions: Int[Tensor, " vocabulary"],
        *,
        padding_idx: int | None = None,
    ) -> GroupedEmbedding:
        """Return the table whose row `i` is row `positions[i]` of the tables one after the other."""
        spec = GroupedEmbeddingSpec(groups=tuple(table.spec for table in groups), padding_idx=padding_idx)
        layer = cls(spec, device="meta")
        layer.groups = nn.ModuleList(groups)
        layer.positions = positions.to(order_dtype(len(positions)))
        return layer

    @property
    def spec(self) -> GroupedEmbeddingSpec:
        """The form of the table as it is now."""
        return GroupedEmbeddingSpec(
            groups=tuple(table.spec for table in self._tables),
            padding_idx=self.padding_idx,
            scale=self.scale,
            **self.grids,
        )

    def rows(self, ids: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch dim"]:
        """Look the rows up, those of a group together."""
        positions, order = self.positions[ids].int().flatten().sort()
        starts = [0, *accumulate(table.num_embeddings for table in self._tables)]
        cuts = torch.searchsorted(positions, positions.new_tensor(starts[1:-1])).cpu()
        parts = zip(self._tables, positions.tensor_split(cuts), starts, strict=False)
        rows = torch.cat([table(part - start) for table, part, start in parts])
        return torch.empty_like(rows).index_copy(0, order, rows).view(*ids.shape, self.embedding_dim)

    def scores(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch vocabulary"]:
        """Return x · Wᵀ, group by group."""
        return torch.cat([table(x, score=True) for table in self._tables], dim=-1)[..., self.positions.long()]

    def dense_weight(self) -> Float[Tensor, "vocabulary dim"]:
        """Return the table."""
        return torch.cat([table.dense_weight() for table in self._tables])[self.positions.long()]

    def extra_repr(self) -> str:
        """Return the sizes as the printed model shows them."""
        return f"{self.num_embeddings}, {self.embedding_dim}, groups={len(self.groups)}"

    @property
    def _tables(self) -> list[FactoredEmbedding]:
        return [table for table in self.groups if isinstance(table, FactoredEmbedding)]
