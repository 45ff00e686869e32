"""Which rows and columns of a network may be reordered together without changing what it computes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

from jaxtyping import Int, Shaped
from torch import Tensor

from kronpress.families.family import FEED_FORWARD_ROLES, Family, head_size_of, heads_of
from kronpress.families.fusion import Fusion
from kronpress.families.signatures import PreTrainedConfig

Axis = Literal["rows", "columns"]


@dataclass(frozen=True)
class Side:
    """The rows or the columns of a weight, out × in; of a fused module the rows of one of its shares.

    Attributes:
        path: full path of the module.
        axis: which of the two.
        fusion: how the rows of a fused module are shared, else None.
        share: index of the share.
    """

    path: str
    axis: Axis
    fusion: Fusion | None = None
    share: int = 0

    def take(self, tensor: Shaped[Tensor, "rows *columns"]) -> Shaped[Tensor, "_ *columns"]:
        """Return the rows of a weight or a bias that this side is one of: those of its share."""
        return tensor if self.fusion is None else self.fusion.split(tensor)[self.share]

    def reorder(
        self, tensor: Shaped[Tensor, "rows *columns"], order: Int[Tensor, " size"]
    ) -> Shaped[Tensor, "rows *columns"]:
        """Return a weight or a bias with this side in another order."""
        if self.axis == "columns":
            return tensor[:, order]
        if self.fusion is None:
            return tensor[order]
        parts = self.fusion.split(tensor)
        parts[self.share] = parts[self.share][order]
        return self.fusion.join(parts)


@dataclass(frozen=True)
class Fold:
    """Sides that hold the same thing, such as the hidden neurons: reordered alike, they leave the function as it is.

    Attributes:
        sides: of equal length.
        segment: an index may only move inside its run of so many consecutive ones; None: anywhere.
    """

    sides: tuple[Side, ...]
    segment: int | None = None


def folds_of(family: Family, block: str, config: PreTrainedConfig) -> Iterator[Fold]:
    """Yield the folds of the block at the path `block`.

    Hidden neurons move freely. Inside each attention head, where the family names those matrices, the rows of value and
    the columns of output move alike, and so do the rows of query and key, unless rotary positions tie them to their
    places; with fewer key heads than query heads neither is a fold of equal sides.
    """
    side = partial(_side, family, block, config)
    roles = [role for role in FEED_FORWARD_ROLES if family.holder(role)]
    yield Fold(tuple(side(role, axis="columns" if role == "down" else "rows") for role in roles))
    heads, key_heads = heads_of(config)
    if key_heads != heads or not family.has_attention:
        return
    size = head_size_of(config)
    yield Fold((side("value"), side("output", axis="columns")), segment=size)
    if not family.rotary:
        yield Fold((side("query"), side("key")), segment=size)


def _side(family: Family, block: str, config: PreTrainedConfig, role: str, *, axis: Axis = "rows") -> Side:
    holder = family.holder(role)
    assert holder is not None, f"a fold over {role}, which {family.model_types} name nowhere"
    fusion = family.fusion(holder, config)
    return Side(f"{block}.{family.roles[holder]}", axis, fusion, fusion.roles.index(role) if fusion else 0)
