"""Recipes: YAML files that say which model, which text and which steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, field_validator

from kronpress import distill, evaluate, factorize  # noqa: F401  (their steps register themselves)
from kronpress.errors import KronpressError, did_you_mean
from kronpress.precision import Precision
from kronpress.shipped import shipped
from kronpress.step import STEPS, Step
from kronpress.validation import parse


class TextSource(BaseModel):
    """Where text comes from.

    Attributes:
        train: for calibration and training: a file, a folder, several joined by commas, or `bundled:NAME`.
        held_out: for measuring; by default the last tenth of `train`, which is then not trained on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    train: str = "bundled:python-reference"
    held_out: str | None = None


class Recipe(BaseModel):
    """A run in full: the same recipe, model and text give the same result.

    Attributes:
        model: a folder, a hub id, a GGUF file or `bundled:NAME`.
        steps: in order.
        seed: of everything random.
        precision: number format of matrix products, `bf16` or `fp32`; `auto` is the one that is faster on the machine.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    description: str = ""
    model: str = "bundled:smollm2-135m"
    data: TextSource = TextSource()
    seed: int = Field(default=0, ge=0)
    precision: Precision = "auto"
    steps: tuple[SerializeAsAny[Step], ...] = Field(min_length=1)

    @field_validator("steps", mode="before")
    @classmethod
    def _typed(cls, value: Any) -> list[Step]:
        if not isinstance(value, list | tuple) or not value:
            raise KronpressError(f"steps must be a list of mappings, each with the key step, not {value!r}")
        return [_step(index, item) for index, item in enumerate(value)]

    def to_yaml(self) -> str:
        """Return the recipe with every default spelled out."""
        fields = self.model_dump(mode="json", exclude={"steps"})
        fields["steps"] = [_spelled_out(step) for step in self.steps]
        return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)


def _step(index: int, item: Any) -> Step:
    if isinstance(item, Step):
        return item
    if not isinstance(item, dict) or "step" not in item:
        raise KronpressError(f"steps.{index} is {item!r}; it must be a mapping with the key step: {', '.join(STEPS)}")
    kind = STEPS[str(item["step"])]
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
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise KronpressError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise KronpressError(f"{path} must hold a mapping with the keys {', '.join(Recipe.model_fields)}")
    content = {str(key): value for key, value in content.items()} | (fields or {})
    for override in overrides:
        _override(content, override)
    return parse(Recipe, content, place=f"recipe {path.name}")


def _find(source: str | Path) -> Path:
    if Path(source).is_file():
        return Path(source)
    known = shipped()
    if str(source) not in known:
        kind = "file" if str(source).endswith((".yaml", ".yml")) or "/" in str(source) else "shipped recipe"
        raise KronpressError(f"there is no {kind} '{source}'; shipped recipes: {did_you_mean(str(source), known)}")
    return known[str(source)]


def _override(content: dict[str, Any], text: str) -> None:
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise KronpressError(f"the override '{text}' must look like a.b=c, for instance distill.tokens=50000")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        if value.startswith(tuple("[{\"'")):
            raise KronpressError(f"the override '{text}': {value!r} is not a YAML value") from error
        parsed = value  # a glob such as *.mlp.*, which YAML takes for an alias
    parts = path.split(".")
    for target, rest in _targets(content, parts, text):
        _assign(target, rest, parsed, text)


def _targets(content: dict[str, Any], parts: list[str], text: str) -> list[tuple[dict[str, Any], list[str]]]:
    steps = [step for step in _list(content.get("steps")) if isinstance(step, dict)]
    if parts[0] == "steps" and len(parts) > 2:
        parts = parts[1:]
    elif parts[0] in Recipe.model_fields:
        return [(content, parts)]
    if parts[0].isdigit() and len(parts) > 1:
        if int(parts[0]) >= len(steps):
            raise KronpressError(f"the override '{text}': the recipe has {len(steps)} steps, numbered from 0")
        return [(steps[int(parts[0])], parts[1:])]
    named = [step for step in steps if step.get("step") == parts[0]]
    if named and len(parts) < 2:
        raise KronpressError(f"the override '{text}': name a key of the step as well, for instance {parts[0]}.KEY=…")
    if not named:
        known = {*Recipe.model_fields, *(str(step.get("step")) for step in steps)}
        raise KronpressError(f"the override '{text}': {did_you_mean(parts[0], known)}")
    return [(step, parts[1:]) for step in named]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _assign(target: dict[str, Any], parts: list[str], value: Any, text: str) -> None:
    for part in parts[:-1]:
        inner = target.get(part)
        if isinstance(inner, str):  # a method given by its name alone
            inner = {"name": inner}
        if part != parts[0] and isinstance(inner, int | float):  # a loss given by its weight alone
            inner = {"weight": inner}
        if inner is None:
            inner = {}
        if not isinstance(inner, dict):
            raise KronpressError(f"the override '{text}': '{part}' is {inner!r}, which has no keys")
        target[part] = inner
        target = inner
    target[parts[-1]] = value
