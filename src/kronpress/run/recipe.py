"""Recipes: YAML files that say which model, which text and which steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, SerializeAsAny, field_validator

from kronpress import distill, evaluate, factorize, finetune  # noqa: F401  (their steps register themselves)
from kronpress.data import read_utf8, user_path
from kronpress.errors import KronpressError, did_you_mean, shown
from kronpress.notation import NotYamlError, read_yaml, write_yaml
from kronpress.precision import Precision
from kronpress.shipped import shipped
from kronpress.step import STEPS, Step
from kronpress.validation import Checked, parse

_PARTS = 10  # keys inside of each other that an override names at most
_LARGEST_SEED = 2**31 - 1  # leaves room for the seeds of steps and runs, of the 2**32 that numpy takes


class TextSource(Checked):
    """Where text comes from.

    Attributes:
        train: for calibration and training: a file, a folder, several joined by commas, or `bundled:NAME`.
        held_out: for measuring; by default the last tenth of `train`, which is then not trained on.
    """

    train: str = "bundled:python-reference"
    held_out: str | None = None


class Recipe(Checked):
    """A run in full: the same recipe, model and text give the same result.

    Attributes:
        model: a folder, a hub id, a GGUF file or `bundled:NAME`.
        steps: in order.
        seed: of everything random.
        precision: number format of matrix products, `bf16` or `fp32`; `auto` is the one that is faster on the machine.
    """

    description: str = ""
    model: str = "bundled:smollm2-135m"
    data: TextSource = TextSource()
    seed: int = Field(default=0, ge=0, le=_LARGEST_SEED)
    precision: Precision = "auto"
    steps: tuple[SerializeAsAny[Step], ...] = Field(min_length=1)

    @field_validator("steps", mode="before")
    @classmethod
    def _typed(cls, value: Any) -> list[Step]:
        if not isinstance(value, list | tuple) or not value:
            raise KronpressError(f"steps must be a list of mappings, each with the key step, not {shown(value)}")
        return [_step(index, item) for index, item in enumerate(value)]

    def to_yaml(self) -> str:
        """Return the recipe with every default spelled out."""
        fields = self.model_dump(mode="json", exclude={"steps"})
        fields["steps"] = [_spelled_out(step) for step in self.steps]
        return write_yaml(fields)


def _step(index: int, item: Any) -> Step:
    if isinstance(item, Step):
        return item
    if not isinstance(item, dict) or "step" not in item:
        raise KronpressError(
            f"steps.{index} is {shown(item)}; it must be a mapping with the key step: {', '.join(STEPS)}"
        )
    kind = STEPS[item["step"]]
    return parse(
        kind, {key: value for key, value in item.items() if key != "step"}, place=f"steps.{index} ({kind.kind})"
    )


def _spelled_out(step: Step) -> dict[str, Any]:
    fields = _with_names(step, step.model_dump(mode="json"))
    fields.pop("name")
    known = {key for key, field in type(step).model_fields.items() if field.default is None}
    return {"step": step.kind, **{key: value for key, value in fields.items() if value is not None or key not in known}}


def _with_names(value: Any, dumped: Any) -> Any:
    """Return what a value dumps to, with the name of every method in it, as a recipe gives them."""
    if isinstance(value, dict):
        return {label: _with_names(each, dumped[label]) for label, each in value.items()}
    if not isinstance(value, BaseModel):
        return dumped
    fields = {name: _with_names(getattr(value, name), dumped[name]) for name in type(value).model_fields}
    kind = getattr(type(value), "kind", None)
    if kind is None:
        return {name: each for name, each in fields.items() if each is not None}
    return {"name": kind, **fields}


def read_recipe(source: str | Path, *, overrides: Sequence[str] = (), fields: dict[str, Any] | None = None) -> Recipe:
    """Read a recipe file, or a shipped recipe by name.

    Args:
        source: path of a YAML file, or the name of a shipped recipe.
        overrides: `a.b=c` with c as YAML; a step is addressed by its number or its name (`distill.tokens=1000`).
        fields: top-level keys that replace those of the file.

    Raises:
        KronpressError: no such recipe, bad YAML, or a key or value that is not understood.
    """
    path = _find(source)
    content = read_yaml(read_utf8(path), place=str(path))
    if not isinstance(content, dict):
        raise KronpressError(f"{path} must hold a mapping with the keys {', '.join(Recipe.model_fields)}")
    content |= fields or {}
    for override in overrides:
        _override(content, override)
    return parse(Recipe, content, place=f"recipe {path.name}")


def _find(source: str | Path) -> Path:
    name = str(source)
    path = user_path(name)
    if path.is_file():
        return path
    known = shipped()
    if name not in known:
        kind = "file" if name.endswith((".yaml", ".yml")) or "/" in name else "shipped recipe"
        raise KronpressError(f"there is no {kind} {shown(name)}; shipped recipes: {did_you_mean(name, known)}")
    return known[name]


def _override(content: dict[str, Any], text: str) -> None:
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
    for target, rest in _targets(content, parts, place):
        _assign(target, rest, parsed, place)


def _targets(content: dict[str, Any], parts: list[str], place: str) -> list[tuple[dict[str, Any], list[str]]]:
    steps = [step for step in _list(content.get("steps")) if isinstance(step, dict)]
    if parts[0] == "steps" and len(parts) > 2:
        parts = parts[1:]
    elif parts[0] in Recipe.model_fields:
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
        known = {*Recipe.model_fields, *(step["step"] for step in steps if isinstance(step.get("step"), str))}
        raise KronpressError(f"{place}: {did_you_mean(parts[0], known)}")
    return [(step, parts[1:]) for step in named]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _assign(target: dict[str, Any], parts: list[str], value: Any, place: str) -> None:
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
