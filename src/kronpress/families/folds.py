"""Which rows and columns of a network may be reordered together without changing what it computes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from kronpress.families.family import FEED_FORWARD_ROLES, Family
from kronpress.families.signatures import PreTrainedConfig

Axis = Literal["rows", "columns"]


@dataclass(frozen=True)
class Side:
    """The rows or the columns of a weight, out × in; of a fused module those of one of its equal shares."""

    path: str
    axis: Axis
    share: int = 0
    shares: int = 1


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

    Hidden neurons move freely. Inside each attention head the rows of value and the columns of output move alike, and
    so do the rows of query and key, unless rotary positions tie them to their places; with fewer key heads than query
    heads neither is a fold of equal sides.
    """
    roles = [role for role in FEED_FORWARD_ROLES if role in family.roles]
    yield Fold(tuple(_side(family, block, role, axis="columns" if role == "down" else "rows") for role in roles))
    heads = int(config.num_attention_heads)
    if (getattr(config, "num_key_value_heads", None) or heads) != heads:
        return
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    yield Fold((_side(family, block, "value"), _side(family, block, "output", axis="columns")), segment=size)
    if not family.rotary:
        yield Fold((_side(family, block, "query"), _side(family, block, "key")), segment=size)


def _side(family: Family, block: str, role: str, *, axis: Axis = "rows") -> Side:
    if role in family.roles:
        return Side(f"{block}.{family.roles[role]}", axis)
    fused, shares = next((name, shares) for name, shares in family.fused.items() if role in shares)
    return Side(f"{block}.{family.roles[fused]}", axis, shares.index(role), len(shares))
