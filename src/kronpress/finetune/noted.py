"""What trainings have noted on disk: the settings that they began with, and what they came to."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from kronpress.checkpoint import files
from kronpress.errors import KronpressError
from kronpress.records import Record, decode

_REMEDY = "restore it, or remove it, and the training that it tells of starts over"

R = TypeVar("R", bound=Record)


def read_record(path: Path, kind: type[R]) -> R:
    """Read a record that a training has noted.

    Raises:
        KronpressError: it is damaged.
    """
    return decode(kind, files.read_json(path), place=path, remedy=_REMEDY)


def read_settings(path: Path) -> dict[str, Any]:
    """Read the settings that a training began with, as JSON values.

    Raises:
        KronpressError: they are damaged.
    """
    value = files.read_json(path)
    if not isinstance(value, dict):
        raise KronpressError(f"{path} is damaged: it is no mapping; {_REMEDY}")
    return value
