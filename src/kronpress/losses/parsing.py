"""Losses as a recipe gives them."""

from __future__ import annotations

from typing import Any

from kronpress.errors import KronpressError, shown
from kronpress.losses.loss import LOSSES, Loss
from kronpress.validation import parse_named


def parse_losses(value: Any) -> dict[str, Loss]:
    """Read losses as a recipe gives them: a name, or a mapping of labels to fields or weights.

    Raises:
        KronpressError: an unknown loss, or fields that are not its own.
    """
    given = {value: {}} if isinstance(value, str) else value
    if not isinstance(given, dict):
        raise KronpressError(f"losses is {shown(value)}; give a mapping of {', '.join(LOSSES)} to their fields")
    losses = {}
    for label, fields in given.items():
        named = {"weight": fields} if isinstance(fields, int | float) else fields or {}
        losses[str(label)] = parse_named(named, LOSSES, key=f"losses.{shown(label)[1:-1]}", default=str(label))
    if len({label.replace(".", "_") for label in losses}) < len(losses):
        raise KronpressError(f"losses has labels that differ in '.' and '_' alone: {', '.join(losses)}; rename one")
    return losses
