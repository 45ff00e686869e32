"""Turn plain mappings into validated objects, with errors a user can act on."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator

from kronpress.errors import KronpressError, did_you_mean, shown
from kronpress.registry import Shelf

Model = TypeVar("Model", bound=BaseModel)

_LARGEST = 2**53  # whole numbers that a float can tell apart end here
_MESSAGES = 4  # of one mapping
_NAME_BYTES = 100  # leaves room for what is put around a name, of the 255 that file systems take
_NOT_IN_NAMES = set('/\\:*?"<>|')
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))}


class Checked(BaseModel):
    """Fields as a user gives them; unknown ones, booleans for numbers, and numbers that are not finite are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_booleans(cls, value: Any, info: Any) -> Any:
        kinds = cls.model_fields[str(info.field_name)].annotation
        numeric = _mentions(kinds, {int, float}) and not _mentions(kinds, {bool})
        if numeric and any(isinstance(number, bool) for number in _several(value)):
            raise ValueError("a number is needed, not true or false")
        return value

    @field_validator("*", mode="after")
    @classmethod
    def _no_giants(cls, value: Any) -> Any:
        if any(isinstance(number, int) and abs(number) > _LARGEST for number in _several(value)):
            raise ValueError(f"a whole number can be at most {_LARGEST:,}")
        return value

    @model_validator(mode="after")
    def _says_something(self) -> Any:
        for name, remedy in self.unread().items():
            value = getattr(self, name)
            if value != type(self).model_fields[name].get_default(call_default_factory=True):
                raise KronpressError(f"{name}: {shown(value)} would not be read; {remedy}")
        return self

    def unread(self) -> dict[str, str]:
        """Return the fields that have no effect with the others as they are, and for each what to do instead."""
        return {}


def _several(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else (value,)


def _mentions(annotation: Any, kinds: Collection[type]) -> bool:
    return annotation in kinds or any(_mentions(part, kinds) for part in get_args(annotation))


def path_name(name: str, *, what: str, others: Collection[str] = ()) -> str:
    """Return `name` if a file or folder can be called so on every system, next to those called `others`.

    Raises:
        KronpressError: it can not; `what` is what the message calls it.
    """
    reason = _unfit(name)
    if reason is None and _folded(name) in {_folded(other) for other in others}:
        reason = "another is called so, and some disks do not tell capitals from small letters"
    if reason is not None:
        raise KronpressError(f"{what} cannot be called {shown(name)}: {reason}; choose another name")
    return name


def _unfit(name: str) -> str | None:
    """Say why a name can not be that of a file or folder on every system; None where it can."""
    if not name.strip():
        return "the name is empty"
    if len(name.encode("utf-8", "surrogatepass")) > _NAME_BYTES:
        return f"it takes more than {_NAME_BYTES} bytes"
    wrong = next((sign for sign in name if sign in _NOT_IN_NAMES or unicodedata.category(sign) in ("Cc", "Cs")), None)
    if wrong is not None:
        return f"folders can not have {shown(wrong)} in their names"
    if name[0] in ". " or name[-1] in ". ":
        return "it begins or ends with a dot or a space"
    if name.lower().endswith(".json"):
        return "the ending .json is that of its report"
    if name.partition(".")[0].strip().lower() in _DEVICES:
        return "Windows keeps that name for a device"
    return None


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def parse(
    model: type[Model], fields: Mapping[Any, Any], *, place: str, elsewhere: Mapping[str, str] | None = None
) -> Model:
    """Validate `fields` as `model`.

    Args:
        place: what messages call the fields.
        elsewhere: keys that `model` does not have but others around it do, and for each what to do instead.

    Raises:
        KronpressError: an unknown key (with the nearest one, or the place where it belongs), a missing key or a wrong
            value.
    """
    try:
        return model.model_validate(dict(fields))
    except ValidationError as error:
        faults = error.errors(include_url=False)
        explained = dict.fromkeys(_explain(model, dict(fault), elsewhere or {}) for fault in faults[:_MESSAGES])
        messages = [f"{place}: {message}" for message in explained]
        more = [f"and {len(faults) - _MESSAGES} more"] if len(faults) > _MESSAGES else []
        raise KronpressError("; ".join([*messages, *more])) from error


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
        raise KronpressError(f"{key} is {shown(value)}; give a name or a mapping with one: {', '.join(shelf)}")
    return parse(
        shelf[name], {field: given for field, given in fields.items() if field != "name"}, place=f"{key} {name}"
    )


def _explain(model: type[BaseModel], error: dict[str, Any], elsewhere: Mapping[str, str]) -> str:
    """Say what is wrong with one value, and what to do."""
    where: tuple[Any, ...] = error["loc"]
    path = ".".join(str(part)[:_NAME_BYTES] for part in where if "[" not in str(part))  # not a union's branches
    kind, cause = error["type"], error.get("ctx", {}).get("error")
    if isinstance(cause, KronpressError):  # it names the value itself
        return str(cause)
    if kind in ("extra_forbidden", "invalid_key"):
        remedy = elsewhere.get(str(where[0])) if len(where) == 1 else None
        return f"unknown key '{path}': {remedy or did_you_mean(str(where[-1]), _keys(model, where))}"
    if kind == "missing":
        return f"the key '{path}' is missing"
    if kind == "model_type":
        keys = _keys(model, (*where, ""))
        return f"{path} is {shown(error['input'])}; give a mapping with the keys {', '.join(keys)}"
    message = str(error["msg"]).removeprefix("Value error, ")
    return message if isinstance(error["input"], dict) else f"{path} is {shown(error['input'])}: {message}"


def _keys(model: type[BaseModel], path: Sequence[Any]) -> list[str]:
    """Return the keys that stand beside the last one of `path`, which starts at `model`."""
    return list(_owner(model, path).model_fields)


def _owner(model: type[BaseModel], path: Sequence[Any]) -> type[BaseModel]:
    """Return the model that has the last key of `path`, which starts at `model`."""
    for part in path[:-1]:
        field = model.model_fields.get(str(part))
        kind = field.annotation if field else None
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            break
        model = kind
    return model
