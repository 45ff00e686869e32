"""Recipes: YAML files that say which model, which text and which steps."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, Field, SerializeAsAny, field_serializer, field_validator, model_validator

from kronpress import (  # noqa: F401  (their steps register themselves)
    distill,
    evaluate,
    factorize,
    finetune,
    pretrain,
    prune,
    quantize,
    reconstruct,
    truncate,
)
from kronpress.data import read_utf8, user_path
from kronpress.data.cleaning import Cleaning
from kronpress.errors import KronpressError, did_you_mean, shown
from kronpress.notation import read_yaml, write_yaml
from kronpress.precision import Precision
from kronpress.run.overrides import override
from kronpress.run.self_text import SELF, SelfText
from kronpress.shipped import shipped
from kronpress.step import STEPS, Step
from kronpress.validation import Checked, parse

Memory: TypeAlias = Literal["auto", "whole", "blocks"]
"""How much of a model is in memory; see `Recipe`."""

_LEAST_WEIGHT = 1e-6  # of a text beside others
_LARGEST_SEED = 2**31 - 1  # leaves room for the seeds of steps and runs, of the 2**32 that numpy takes


class TextShare(Checked):
    """One text of several, and its share of the tokens as a multiple of the others'."""

    source: str
    weight: float = Field(default=1.0, ge=_LEAST_WEIGHT, le=1 / _LEAST_WEIGHT)


class TextSource(Checked):
    """Where text comes from.

    Both are a text, or several with their weights: `{a.txt: 1, b.txt: 2}`, or under names of your own
    `{news: {source: a.txt, weight: 2}}`. A text is a file, a folder, a pattern, several joined by commas, or
    `bundled:NAME`. One
    of `train` may be `self`: what the model itself writes.

    Attributes:
        train: for calibration and training.
        held_out: for measuring; by default the last tenth of `train`, of each of its texts apart, which is then not
            trained on.
        self_text: how much the model writes where one of `train` is `self`, and how; see `SelfText`.
        clean: take duplicates, HTML and bad text out of `train` first: `true`, or the settings of the cleaning; a
            `held_out` that is named stays as it is.
    """

    train: str | dict[str, TextShare] = "bundled:python-reference"
    held_out: str | dict[str, TextShare] | None = None
    self_text: SelfText | None = None
    clean: Cleaning | None = None

    @model_validator(mode="after")
    def _of_itself(self) -> TextSource:
        if SELF in _sources(self.held_out):
            raise KronpressError(f"data.held_out: {SELF} would measure on what the model writes; name another text")
        if self.self_text is not None and SELF not in _sources(self.train):
            raise KronpressError(f"data.self_text is of no use without {SELF} in data.train; make it null")
        return self

    @field_validator("clean", mode="before")
    @classmethod
    def _wanted(cls, value: Any) -> Any:
        if isinstance(value, bool):
            return Cleaning() if value else None
        return parse(Cleaning, value, place="data.clean") if isinstance(value, dict) else value

    @field_serializer("clean")
    def _spelled_out(self, clean: Cleaning | None) -> dict[str, Any] | None:
        return None if clean is None else clean.spelled_out()

    @field_validator("train", "held_out", mode="before")
    @classmethod
    def _weighted(cls, value: Any, info: Any) -> Any:
        if isinstance(value, str) or (value is None and info.field_name == "held_out"):
            return value
        return _text_shares(value, place=f"data.{info.field_name}")


def shares_of(source: str | Mapping[str, TextShare]) -> Mapping[str, TextShare]:
    """Return texts by their names; a single one is called what its source is called."""
    return {source: TextShare(source=source)} if isinstance(source, str) else source


def _sources(source: str | Mapping[str, TextShare] | None) -> list[str]:
    return [] if source is None else [share.source for share in shares_of(source).values()]


def _text_shares(value: Any, *, place: str) -> dict[str, TextShare]:
    """Return the texts of a mixture by their names, which are their sources where nothing else is said."""
    if not isinstance(value, dict) or not value:
        raise KronpressError(f"{place} is {shown(value)}; name a text, or several with weights: {{a.txt: 1, b.txt: 2}}")
    shares: dict[str, TextShare] = {}
    for name, given in value.items():
        fields = given if isinstance(given, dict) else {"weight": given}
        share = (
            given
            if isinstance(given, TextShare)
            else parse(TextShare, {"source": name, **fields}, place=f"{place}, {shown(name)}")
        )
        twice = next((other for other, known in shares.items() if known.source == share.source), None)
        if twice is not None:
            raise KronpressError(
                f"{place} names {shown(share.source)} twice, as {shown(twice)} and {shown(name)}; give it one weight"
            )
        shares[name] = share
    return shares


class Recipe(Checked):
    """A run in full: the same recipe, model and text give the same result.

    Attributes:
        model: a folder, a hub id, a GGUF file or `bundled:NAME`.
        steps: in order.
        seed: of everything random.
        precision: number format of matrix products, `bf16` or `fp32`; `auto` is the one that is faster on the machine.
        memory: `whole`, the model in memory; `blocks`, one block of it at a time, while the others stay in files; or
            `auto`, blocks where the model would take more than half of the memory and all steps can do with them.
    """

    description: str = ""
    model: str = "bundled:smollm2-135m"
    data: TextSource = TextSource()
    seed: int = Field(default=0, ge=0, le=_LARGEST_SEED)
    precision: Precision = "auto"
    memory: Memory = "auto"
    steps: tuple[SerializeAsAny[Step], ...] = Field(min_length=1)

    @field_validator("steps", mode="before")
    @classmethod
    def _typed(cls, value: Any) -> list[Step]:
        if not isinstance(value, list | tuple) or not value:
            raise KronpressError(f"steps must be a list of mappings, each with the key step, not {shown(value)}")
        return [_step(index, fields) for index, fields in enumerate(value)]

    def to_yaml(self) -> str:
        """Return the recipe with every default spelled out."""
        fields = self.model_dump(mode="json", exclude={"steps"})
        fields["steps"] = [_spelled_out(step) for step in self.steps]
        return write_yaml(fields)

    def digest(self) -> str:
        """Return what tells the recipe from others."""
        return hashlib.sha256(self.to_yaml().encode()).hexdigest()


def _step(index: int, fields: Any) -> Step:
    if isinstance(fields, Step):
        return fields
    if not isinstance(fields, dict) or "step" not in fields:
        raise KronpressError(
            f"steps.{index} is {shown(fields)}; it must be a mapping with the key step: {', '.join(STEPS)}"
        )
    kind = STEPS[fields["step"]]
    own = {key: value for key, value in fields.items() if key != "step"}
    recipes = {key: "write it at the top of the recipe, beside steps" for key in Recipe.model_fields}
    return parse(kind, own, place=f"steps.{index} ({kind.kind})", elsewhere={**_keys_of_steps(), **recipes})


def _keys_of_steps() -> dict[str, str]:
    """Return the keys that steps have, and for each what to do where it stands outside of them."""
    owners: dict[str, list[str]] = {}
    for name, kind in STEPS.items():
        for key in kind.model_fields:
            owners.setdefault(key, []).append(name)
    return {key: f"write it in a step that has it: {', '.join(names)}" for key, names in owners.items()}


def _spelled_out(step: Step) -> dict[str, Any]:
    """Return a step as a recipe gives it, without what is null by default."""
    fields = _with_names(step, step.model_dump(mode="json"))
    fields.pop("name")
    null = {key for key, field in type(step).model_fields.items() if field.default is None}
    return {"step": step.kind, **{key: value for key, value in fields.items() if value is not None or key not in null}}


def _with_names(value: Any, dumped: Any) -> Any:
    """Return what a value dumps to, with the name of every method in it, as a recipe gives them."""
    if isinstance(value, dict):
        return {label: _with_names(part, dumped[label]) for label, part in value.items()}
    if not isinstance(value, BaseModel):
        return dumped
    fields = {name: _with_names(getattr(value, name), dumped[name]) for name in type(value).model_fields}
    kind = getattr(type(value), "kind", None)
    if kind is None:
        null = {name for name, field in type(value).model_fields.items() if field.default is None}
        return {name: field for name, field in fields.items() if field is not None or name not in null}
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
    content |= _with_cleaning(content, fields or {})
    for text in overrides:
        override(content, text, top=Recipe.model_fields)
    return make_recipe(content, place=f"recipe {path.name}")


def _with_cleaning(content: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """Return fields whose text is cleaned as that of the recipe would be, whose place it takes."""
    before, now = content.get("data"), fields.get("data")
    if isinstance(before, dict) and isinstance(now, dict) and "clean" in before:
        return {**fields, "data": {"clean": before["clean"], **now}}
    return fields


def make_recipe(content: Mapping[str, Any], *, place: str = "the recipe") -> Recipe:
    """Return the recipe that a mapping describes; `place` is what messages call it.

    Raises:
        KronpressError: a key or value is not understood.
    """
    return parse(Recipe, content, place=place, elsewhere=_keys_of_steps())


def _find(source: str | Path) -> Path:
    name = str(source)
    path = user_path(name)
    if path.is_file():
        return path
    recipes = shipped()
    if name not in recipes:
        kind = "file" if name.endswith((".yaml", ".yml")) or "/" in name else "shipped recipe"
        raise KronpressError(f"there is no {kind} {shown(name)}; shipped recipes: {did_you_mean(name, recipes)}")
    return recipes[name]
