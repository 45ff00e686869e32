"""Write tensors and folders whole: a reader sees the old content or the new, never a part."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from kronpress.disk import (
    free_bytes,
    partial_of,
    read_json,
    read_object,
    remove,
    remove_partial,
    replacing,
    require_absent,
    require_empty,
    require_possible,
    require_space,
    sha256,
    write_json,
    write_text,
)
from kronpress.errors import KronpressError
from kronpress.lock import NOTE, locked

__all__ = [
    "FULL",
    "digest",
    "new_file",
    "partial_of",
    "read_json",
    "read_object",
    "remove",
    "remove_partial",
    "replacing",
    "require_absent",
    "require_empty",
    "require_possible",
    "require_space",
    "sha256",
    "staged",
    "write_json",
    "write_tensors",
    "write_text",
]

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # EFBIG: a limit of the process or of the file system


@contextmanager
def staged(folder: Path, *, needed: int) -> Iterator[Path]:
    """Give an empty folder, which becomes `folder` when it has been filled without an error.

    It lies beside `folder`; what a killed process left there is removed.

    Args:
        folder: must be absent or empty.
        needed: bytes that will be written.

    Raises:
        KronpressError: the folder holds something or cannot be made, another process writes it, or the disk is full.
    """
    require_empty(folder)
    target = Path(os.path.realpath(folder))
    if target == Path.cwd():
        raise KronpressError(f"{folder} is the folder that you are in, which cannot be replaced; name another one")
    staging = partial_of(target)
    try:
        with locked(staging):
            _clear(staging)
            require_space(folder, needed=needed)
            try:
                yield staging
                _open_to_others(staging)
                require_empty(folder)
                (staging / NOTE).unlink(missing_ok=True)
                if os.name == "nt" and target.exists():
                    target.rmdir()
                os.replace(staging, target)
            except BaseException:
                shutil.rmtree(staging, ignore_errors=True)
                raise
    except Exception as error:
        if isinstance(error, KronpressError) or not (isinstance(error, OSError | SafetensorError) or _number(error)):
            raise
        raise KronpressError(f"cannot write {folder}: {_reason(error, folder, needed=needed)}") from error


@contextmanager
def new_file(path: Path, *, needed: int) -> Iterator[Path]:
    """Give the path of a new file, which becomes `path` when it has been written without an error.

    Args:
        path: must be absent; its folder is made.
        needed: bytes that will be written.

    Raises:
        KronpressError: there is something at the path, or the disk is full.
    """
    require_absent(path)
    require_space(path.parent, needed=needed)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            yield partial
    except OSError as error:
        raise KronpressError(f"cannot write {path}: {_reason(error, path, needed=needed)}") from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor], *, metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors in the format of safetensors, atomically; of those that share their memory, the first.

    Raises:
        OSError: the disk is full, or the file cannot be written for another reason; the message tells the space.
    """
    stored = _distinct(tensors)
    try:
        with replacing(path) as partial:
            safetensors.torch.save_file(stored, partial, metadata={"format": "pt", **(metadata or {})})
    except (OSError, SafetensorError) as error:
        number = _number(error)
        if number is None:
            raise
        size = sum(value.numel() * value.element_size() for value in stored.values())
        raise OSError(number, _reason(error, path, needed=size), str(path)) from error


def digest(path: Path) -> str:
    """Return what tells a file, or all files of a folder but notes and hidden ones, from others."""
    if path.is_file():
        return sha256(path)
    paths = sorted(below for below in path.rglob("*") if below.is_file())
    named = [(below.relative_to(path).as_posix(), below) for below in paths]
    counted = [(name, below) for name, below in named if not name.startswith(".") and below.suffix != ".md"]
    return hashlib.sha256(repr([(name, sha256(below)) for name, below in counted]).encode()).hexdigest()


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != NOTE:
            path.unlink()


def _open_to_others(folder: Path) -> None:
    """Let others read a folder; safetensors makes files that only their owner may read."""
    folder.chmod(0o755)
    for path in folder.iterdir():
        path.chmod(0o644)


def _distinct(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors without those that share the memory of one before."""
    seen: set[tuple[int, int]] = set()
    distinct = {}
    for name, value in tensors.items():
        place = (value.data_ptr(), value.numel())
        if value.numel() and place in seen:
            continue
        seen.add(place)
        distinct[name] = value.contiguous()
    return distinct


def _number(error: Exception) -> int | None:
    """Return the number of an error of the operating system, also where a library in Rust tells of it."""
    told = re.search(r"\(os error (\d+)\)", str(error))
    if isinstance(error, OSError) and error.errno is None and re.search(r"\d+ requested and \d+ written", str(error)):
        return errno.ENOSPC  # which numpy does not say
    return error.errno if isinstance(error, OSError) else int(told[1]) if told else None


def _reason(error: Exception, path: Path, *, needed: int) -> str:
    """Say in words why writing failed, and of which size file system and file are where that is the reason."""
    number = _number(error)
    reason = os.strerror(number) if number is not None else str(error)
    if number not in FULL:
        return reason
    return f"{reason} (it takes about {needed / 1e6:,.1f} MB, and {free_bytes(path) / 1e6:,.1f} MB are free)"
