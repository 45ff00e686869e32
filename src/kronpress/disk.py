"""Write text and JSON whole, and ask what a folder holds and a disk has room for.

A reader sees the old content or the new, never a part. Nothing here knows tensors, so that it is light to import.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from kronpress.errors import KronpressError, shown

MARGIN_BYTES = 2**24  # for all that is small


def partial_of(path: Path) -> Path:
    """Return the name that a file or folder has until it is whole, always the same one."""
    return path.with_name(f".{path.name}.partial")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the path of a new file, which takes the place of `path` when it has been written without an error."""
    partial = partial_of(path)
    try:
        yield partial
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically, creating the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def remove(folder: Path) -> None:
    """Remove a folder with all that it holds; what a kill leaves of it has the name of an unfinished one."""
    partial = partial_of(folder)
    shutil.rmtree(partial, ignore_errors=True)
    with suppress(FileNotFoundError):
        os.replace(folder, partial)
    shutil.rmtree(partial, ignore_errors=True)


def remove_partial(folder: Path) -> None:
    """Remove all that a killed process left unfinished in a folder and in those below."""
    for path in list(folder.rglob(partial_of(Path("*")).name)):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


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
        raise KronpressError(f"{path} holds {shown(value)}, not a JSON object with settings; restore it")
    return value


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def require_space(folder: Path, *, needed: int, remedy: str = "choose a folder on another disk") -> None:
    """Check that the file system of `folder` has `needed` bytes free, and some more for what is small.

    Raises:
        KronpressError: it has not; `remedy` says what to do if none can be freed.
    """
    free = free_bytes(folder)
    if free < needed + MARGIN_BYTES:
        raise KronpressError(
            f"{folder} needs about {(needed + MARGIN_BYTES) / 1e6:,.0f} MB but only {free / 1e6:,.0f} MB are free; "
            f"free some space or {remedy}"
        )


def require_possible(folder: Path) -> None:
    """Check that a folder is there or can be made, and may be written into.

    Raises:
        KronpressError: the path is that of a file, too long, a link to nowhere, or there is no permission.
    """
    try:
        reason = _obstacle(Path(os.path.abspath(folder)))
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or str(error)
    if reason is not None:
        raise KronpressError(f"cannot write into {_short(folder)}: {reason}; name another folder")
    if folder.exists() and not folder.is_dir():
        raise KronpressError(f"{folder} is a file; name a folder that does not exist yet")


def require_empty(folder: Path, *, besides: Collection[str] = ()) -> None:
    """Check that a folder is empty, or absent and can be made, so that nothing is overwritten.

    Args:
        besides: names in it that do not count.

    Raises:
        KronpressError: it holds something, or cannot be a folder to write into.
    """
    require_possible(folder)
    if folder.is_dir() and {path.name for path in folder.iterdir()} - set(besides):
        raise KronpressError(f"{folder} already holds files, which are left untouched; name a new folder or remove it")


def require_absent(path: Path) -> None:
    """Check that a new file can be written at a path.

    Raises:
        KronpressError: something is there already, or the folder cannot be written into.
    """
    if os.path.lexists(path):
        raise KronpressError(f"{path} is there already, and is left untouched; name a new file or remove it")
    require_possible(path.parent)


def _obstacle(folder: Path) -> str | None:
    """Say why a folder cannot be made or written into, if there is a reason."""
    for path in (folder, partial_of(folder)):
        with suppress(FileNotFoundError):
            path.stat()  # a loop of links, a name that is too long, a file where a folder should be
    nearest = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not nearest.exists():
        return f"{nearest} is a link to {os.readlink(nearest)}, which does not exist"
    if nearest.is_dir() and not os.access(nearest, os.W_OK | os.X_OK):
        return f"no permission to write into {nearest}"
    return None


def _short(value: object) -> str:
    text = repr(str(value))
    return text if len(text) <= 100 else f"{text[:100]}…'"


def free_bytes(path: Path) -> int:
    """Return how much room the file system of a path has, which need not exist yet."""
    place = path.absolute()
    return shutil.disk_usage(next(parent for parent in (place, *place.parents) if parent.exists())).free
