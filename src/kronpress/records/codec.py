"""Records as JSON: how they are written, and what a reader is told of a file that is damaged or too new."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from kronpress.errors import KronpressError

FORMAT_VERSION = 1
"""Raised when a record of an earlier version can no longer be read as it stands."""

_VERSION = "format_version"


@dataclass(frozen=True)
class Record:
    """A frozen value that `encode` turns into JSON values and `decode` reads again, unknown fields refused."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


R = TypeVar("R", bound=Record)


def encode(record: Record) -> dict[str, Any]:
    """Return a record as JSON values, with the version of the format before its fields."""
    return {_VERSION: FORMAT_VERSION, **asdict(record)}


def decode(kind: type[R], value: Any, *, place: object, remedy: str) -> R:
    """Return the record that `encode` wrote.

    Args:
        kind: which record it is.
        value: parsed JSON.
        place: the file that it stands in, as a message names it.
        remedy: what to do about a damaged one, as a message ends.

    Raises:
        KronpressError: it is of a newer version, or a field is missing, unknown or of another type.
    """
    version = value.get(_VERSION) if isinstance(value, dict) else None
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise KronpressError(f"{place} is damaged at '{_VERSION}'; {remedy}")
    if version > FORMAT_VERSION:
        raise KronpressError(
            f"{place} has the {_VERSION} {version}, and this kronpress reads {FORMAT_VERSION} at most; "
            "install a newer kronpress"
        )
    fields = {name: field for name, field in value.items() if name != _VERSION}
    try:
        return TypeAdapter(kind).validate_json(json.dumps(fields), strict=True)
    except ValidationError as error:
        field = ".".join(map(str, error.errors(include_url=False)[0]["loc"])) or "its fields"
        raise KronpressError(f"{place} is damaged at '{field}'; {remedy}") from error
