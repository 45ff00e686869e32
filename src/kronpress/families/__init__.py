"""Model families as data: where their parts are."""

from kronpress.families import (  # noqa: F401  (they fill the shelf)
    bert,
    feed_forward_only,
    gemma,
    gpt2,
    llama,
    modernbert,
    neox,
    opt,
    phi,
)
from kronpress.families.branch import Branch
from kronpress.families.family import FAMILIES, Family, family_of, set_heads
from kronpress.families.folds import Fold, Side
from kronpress.families.fusion import Fusion
from kronpress.families.layout import (
    Attention,
    FeedForward,
    Layout,
    Site,
    base_prefix,
    has_module,
    is_causal,
    layout,
    position_limit,
    replace_module,
    vocabulary_size,
    window_of,
)
from kronpress.families.selection import Blocks, select_sites

__all__ = [
    "FAMILIES",
    "Attention",
    "Blocks",
    "Branch",
    "Family",
    "FeedForward",
    "Fold",
    "Fusion",
    "Layout",
    "Side",
    "Site",
    "base_prefix",
    "family_of",
    "has_module",
    "is_causal",
    "layout",
    "position_limit",
    "replace_module",
    "select_sites",
    "set_heads",
    "vocabulary_size",
    "window_of",
]
