"""Turn plain mappings into validated objects, with errors a user can act on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from kronpress.errors import KronpressError, did_you_mean

Model = TypeVar("Model", bound=BaseModel)


def parse(model: type[Model], fields: Mapping[str, Any], *, place: str) -> Model:
    """Validate `fields` as `model`; `place` is what the message calls them.

    Raises:
        KronpressError: an unknown key (with the nearest known one), a missing key or a wrong value.
    """
    try:
        return model.model_validate(dict(fields))
    except ValidationError as error:
        raise KronpressError("; ".join(_explain(model, dict(item), place) for item in error.errors())) from error


def _explain(model: type[BaseModel], error: dict[str, Any], place: str) -> str:
    path = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        known = [name for name in model.model_fields]
        return f"{place}: unknown key '{path}': {did_you_mean(str(error['loc'][-1]), known)}"
    if error["type"] == "missing":
        return f"{place}: the key '{path}' is missing"
    message = str(error["msg"]).removeprefix("Value error, ")
    if isinstance(error["input"], dict):
        return f"{place}: {message}"
    return f"{place}: {path} is {error['input']!r}: {message}"
