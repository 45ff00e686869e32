"""Write files and folders whole: a reader sees the old content or the new, never a part."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from kronpress.errors import KronpressError, shown
from kronpress.lock import NOTE, locked

MARGIN_BYTES = 2**24  # for all that is small
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # EFBIG: a limit of the process or of the file system


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


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically, creating the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


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


def digest(path: Path) -> str:
    """Return what tells a file, or all files of a folder but notes and hidden ones, from others."""
    if path.is_file():
        return sha256(path)
    paths = sorted(below for below in path.rglob("*") if below.is_file())
    named = [(below.relative_to(path).as_posix(), below) for below in paths]
    counted = [(name, below) for name, below in named if not name.startswith(".") and below.suffix != ".md"]
    return hashlib.sha256(repr([(name, sha256(below)) for name, below in counted]).encode()).hexdigest()


def require_space(folder: Path, *, needed: int) -> None:
    """Check that the file system of `folder` has `needed` bytes free, and some more for what is small.

    Raises:
        KronpressError: it has not.
    """
    free = _free(folder)
    if free < needed + MARGIN_BYTES:
        raise KronpressError(
            f"{folder} needs about {(needed + MARGIN_BYTES) / 1e6:,.0f} MB but only {free / 1e6:,.0f} MB are free; "
            "free some space or choose a folder on another disk"
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


def _free(path: Path) -> int:
    place = path.absolute()
    return shutil.disk_usage(next(parent for parent in (place, *place.parents) if parent.exists())).free


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
    return f"{reason} (it takes about {needed / 1e6:,.1f} MB, and {_free(path) / 1e6:,.1f} MB are free)"
