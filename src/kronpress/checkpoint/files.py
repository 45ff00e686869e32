"""Write files whole: a reader sees the old content or the new, never a part."""

from __future__ import annotations

import hashlib
import json
import os
import reprlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kronpress.errors import KronpressError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the path of a new file, which takes the place of `path` when it has been written without an error."""
    partial = path.with_name(f".{path.name}.partial")
    yield partial
    with partial.open("rb") as stream:
        os.fsync(stream.fileno())
    os.replace(partial, path)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically, creating the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        KronpressError: the file is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise KronpressError(f"{path} does not exist") from error
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, a number of 5,000 digits, 1,000 brackets
        raise KronpressError(f"{path} is not valid JSON ({error}); restore it or make the checkpoint again") from error


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        KronpressError: the file is missing, not JSON or something else.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise KronpressError(f"{path} holds {reprlib.repr(value):.60}, not a JSON object with settings; restore it")
    return value


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def require_space(folder: Path, *, needed: int) -> None:
    """Check that the file system of `folder` has `needed` bytes free.

    Raises:
        KronpressError: it has not.
    """
    existing = next(parent for parent in (folder, *folder.resolve().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise KronpressError(
            f"{folder} needs about {needed / 1e6:,.0f} MB but only {free / 1e6:,.0f} MB are free; "
            "free some space or choose a folder on another disk"
        )


def require_empty(folder: Path) -> None:
    """Check that `folder` is absent or empty, so that nothing is overwritten.

    Raises:
        KronpressError: it holds something, or is a file.
    """
    if folder.is_file():
        raise KronpressError(f"{folder} is a file; name a folder that does not exist yet")
    if folder.is_dir() and any(folder.iterdir()):
        raise KronpressError(f"{folder} already holds files, which are left untouched; name a new folder or remove it")
