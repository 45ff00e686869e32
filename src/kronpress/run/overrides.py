"""Overrides of the command line: `a.b=c` changes one value of a recipe."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from kronpress.errors import KronpressError, did_you_mean, shown
from kronpress.notation import NotYamlError, read_yaml

_PARTS = 10  # keys inside of each other that an override names at most


def override(content: dict[str, Any], text: str, *, top: Collection[str]) -> None:
    """Change one value in what a recipe file holds.

    Args:
        content: the mapping of the recipe, which is changed in place.
        text: `a.b=c` with c as YAML; a step is addressed by its number or its name (`distill.tokens=1000`).
        top: the keys that a recipe has beside its steps.

    Raises:
        KronpressError: it does not look so, its value is not YAML, or there is no such key or step.
    """
    path, equals, value = text.partition("=")
    parts, place = path.split("."), f"the override {shown(text)}"
    if not equals or not path:
        raise KronpressError(f"{place} must look like a.b=c, for instance distill.tokens=50000")
    if len(parts) > _PARTS:
        raise KronpressError(f"{place} names {len(parts)} keys inside of each other; no recipe is so deep")
    try:
        parsed = read_yaml(value, place=place)
    except NotYamlError:
        if value.startswith(tuple("[{\"'&!")):
            raise KronpressError(f"{place}: {shown(value)} is not a YAML value") from None
        parsed = value  # a glob such as *.mlp.*, which YAML takes for an alias
    for target, rest in _targets(content, parts, top, place):
        _assign(target, rest, parsed, place)


def _targets(
    content: dict[str, Any], parts: list[str], top: Collection[str], place: str
) -> list[tuple[dict[str, Any], list[str]]]:
    """Return the mappings that an override changes, and the keys below each of them."""
    steps = [step for step in _list(content.get("steps")) if isinstance(step, dict)]
    if parts[0] == "steps" and len(parts) > 2:
        parts = parts[1:]
    elif parts[0] in top:
        return [(content, parts)]
    if parts[0].isdigit() and len(parts) > 1:
        numbered = {str(index): step for index, step in enumerate(steps)}
        if parts[0] not in numbered:
            raise KronpressError(f"{place}: the recipe has {len(steps)} steps, numbered from 0")
        return [(numbered[parts[0]], parts[1:])]
    named = [step for step in steps if step.get("step") == parts[0]]
    if named and len(parts) < 2:
        raise KronpressError(f"{place}: name a key of the step as well, for instance {parts[0]}.KEY=…")
    if not named:
        choices = {*top, *(step["step"] for step in steps if isinstance(step.get("step"), str))}
        raise KronpressError(f"{place}: {did_you_mean(parts[0], choices)}")
    return [(step, parts[1:]) for step in named]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _assign(target: dict[str, Any], parts: list[str], value: Any, place: str) -> None:
    """Set the value at the end of a path of keys; a method given by its name alone becomes a mapping on the way."""
    for part in parts[:-1]:
        inner = target.get(part)
        if isinstance(inner, str):  # a method given by its name alone
            inner = {"name": inner}
        if part != parts[0] and isinstance(inner, int | float):  # a loss given by its weight alone
            inner = {"weight": inner}
        if inner is None:
            inner = {}
        if not isinstance(inner, dict):
            raise KronpressError(f"{place}: {shown(part)} is {shown(inner)}, which has no keys")
        target[part] = inner
        target = inner
    target[parts[-1]] = value
