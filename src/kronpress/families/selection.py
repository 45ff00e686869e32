"""Choose sites of a model by role, glob or regular expression."""

from __future__ import annotations

import fnmatch
import re
from typing import Literal

from kronpress.errors import KronpressError, shown
from kronpress.families.family import ATTENTION_ROLES, FEED_FORWARD_ROLES
from kronpress.families.layout import Layout, Site, layout
from kronpress.families.signatures import PreTrainedModel

Blocks = Literal["all", "odd", "even"] | tuple[int, ...]
_GROUPS = {"attention": ATTENTION_ROLES, "feed_forward": FEED_FORWARD_ROLES}


def select_sites(
    model: PreTrainedModel, pattern: str, *, blocks: Blocks = "all", skip_blocks: tuple[int, ...] = ()
) -> list[Site]:
    """Return the sites that `pattern` names in the blocks asked for; what is outside of the blocks always counts.

    Blocks are numbered from 0; `odd` are 1, 3, 5, … (KnGPT2 and TQCompressor compress those).

    A pattern is a role (`up`), a group of roles (`feed_forward`, `attention`, `all`), a glob over module
    paths (`*.mlp.*`) or `re:` with a regular expression; several are joined by commas.

    Raises:
        KronpressError: the pattern matches nothing or is not a regular expression.
    """
    plan = layout(model)
    if not plan.family.has_attention:
        _require_known(plan, pattern)
    chosen = [
        site
        for site in plan.sites
        if site.block not in skip_blocks
        and _is_in(site.block, blocks)
        and any(_matches(part.strip(), site) for part in pattern.split(","))
    ]
    if not chosen:
        raise KronpressError(f"the pattern {shown(pattern)} matches no module of the model; {_offer(plan)}")
    _check_blocks(plan, chosen, blocks, skip_blocks)
    return chosen


def _check_blocks(plan: Layout, chosen: list[Site], blocks: Blocks, skip_blocks: tuple[int, ...]) -> None:
    """Refuse numbers of blocks that say nothing."""
    named = ([*blocks] if not isinstance(blocks, str) else []) + [*skip_blocks]
    count = len(plan.block_paths)
    for block in named:
        if not 0 <= block < count:
            raise KronpressError(f"the model has no block {block}; its {count} blocks are numbered from 0")
    idle = next((block for block in skip_blocks if not _is_in(block, blocks)), None)
    if idle is not None:
        raise KronpressError(f"skip_blocks: {idle} is not in blocks: {shown(blocks)} anyway; leave it out")
    if (blocks != "all" or skip_blocks) and all(site.block is None for site in chosen):
        raise KronpressError(f"{chosen[0].path} is in no block; leave blocks and skip_blocks out")


def _require_known(plan: Layout, pattern: str) -> None:
    """Refuse to look for attention, or for all, where only the feed-forward blocks are known."""
    unknown = {"all", "attention", *ATTENTION_ROLES}
    name = next((part for part in map(str.strip, pattern.split(",")) if part in unknown), None)
    if name is not None:
        raise KronpressError(
            f"of {' and '.join(plan.family.model_types)} models the feed-forward blocks alone can be factorized, not "
            f"{name}; write feed_forward in its place"
        )


def _is_in(block: int | None, blocks: Blocks) -> bool:
    if block is None or blocks == "all":
        return True
    if isinstance(blocks, str):
        return block % 2 == (blocks == "odd")
    return block in blocks


def _matches(pattern: str, site: Site) -> bool:
    if pattern == "all":
        return site.block is not None
    group = _GROUPS.get(pattern, ())
    if pattern == site.role or any(role in group for role in (site.role, *site.shares)):
        return True
    if pattern.startswith("re:"):
        try:
            return re.search(pattern[3:], site.path) is not None
        except re.error as error:
            raise KronpressError(f"{shown(pattern)} is not a regular expression: {error}") from error
    return fnmatch.fnmatchcase(site.path, pattern)


def _offer(plan: Layout) -> str:
    roles = sorted({site.role for site in plan.sites})
    example = plan.sites[-2].path
    groups = ", ".join([*_GROUPS, "all"] if plan.family.has_attention else ["feed_forward"])
    return f"use a role ({', '.join(roles)}), a group ({groups}) or a glob over paths like {example}"
