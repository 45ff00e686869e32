"""Turn plain mappings into validated objects, with errors a user can act on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from kronpress.errors import KronpressError, did_you_mean
from kronpress.registry import Shelf

Model = TypeVar("Model", bound=BaseModel)


def parse(model: type[Model], fields: Mapping[Any, Any], *, place: str) -> Model:
    """Validate `fields` as `model`; `place` is what the message calls them.

    Raises:
        KronpressError: an unknown key (with the nearest known one), a missing key or a wrong value.
    """
    try:
        return model.model_validate(dict(fields))
    except ValidationError as error:
        raise KronpressError("; ".join(_explain(model, dict(item), place) for item in error.errors())) from error


def parse_named(value: Any, shelf: Shelf[type[Model]], *, key: str, default: str | None = None) -> Any:
    """Return the method that a recipe names under `key`: by its name alone, or by a mapping with `name` and fields.

    Without `name` the mapping is one of `default`; what is a method already is returned as it is.

    Raises:
        KronpressError: neither name nor mapping, an unknown name, or fields that are not those of the method.
    """
    if isinstance(value, BaseModel):
        return value
    fields = {"name": value} if isinstance(value, str) else value
    name = fields.get("name", default) if isinstance(fields, dict) else None
    if name is None:
        raise KronpressError(f"{key} is {value!r}; give a name or a mapping with one: {', '.join(shelf)}")
    return parse(shelf[str(name)], {k: v for k, v in fields.items() if k != "name"}, place=f"{key} {name}")


def _explain(model: type[BaseModel], error: dict[str, Any], place: str) -> str:
    path = ".".join(str(part) for part in error["loc"] if "[" not in str(part))  # without the branches of a union
    kind, cause = error["type"], error.get("ctx", {}).get("error")
    if isinstance(cause, KronpressError):  # it names the value itself
        return f"{place}: {cause}"
    if kind == "extra_forbidden":
        known = _owner(model, error["loc"]).model_fields
        return f"{place}: unknown key '{path}': {did_you_mean(str(error['loc'][-1]), known)}"
    if kind == "invalid_key":
        return f"{place}: unknown key {path}: {did_you_mean(path, _owner(model, error['loc']).model_fields)}"
    if kind == "missing":
        return f"{place}: the key '{path}' is missing"
    if kind == "model_type":
        known = _owner(model, (*error["loc"], "")).model_fields
        return f"{place}: {path} is {error['input']!r}; give a mapping with the keys {', '.join(known)}"
    message = str(error["msg"]).removeprefix("Value error, ")
    return (
        f"{place}: {message}"
        if isinstance(error["input"], dict)
        else f"{place}: {path} is {error['input']!r}: {message}"
    )


def _owner(model: type[BaseModel], path: Sequence[Any]) -> type[BaseModel]:
    """Return the model that has the last key of `path`, which starts at `model`."""
    for part in path[:-1]:
        field = model.model_fields.get(str(part))
        kind = field.annotation if field else None
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            break
        model = kind
    return model
