"""Keep two processes out of one folder."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from kronpress.errors import KronpressError

if sys.platform != "win32":
    import fcntl

NOTE = ".kronpress.lock"
_ATTEMPTS = 100


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a folder if it is missing and keep other processes out of it; folders made here go again if they stay empty.

    The operating system holds the lock, and releases it however this process ends. The note in the folder tells others
    who holds it; on a file system without locks the note itself is the lock.

    Raises:
        KronpressError: another process has it; the message names the process, its host and the remedy.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    note = _note()
    try:
        handle = _taken(folder, note)
        try:
            yield
        finally:
            if _read(folder) == note:
                (folder / NOTE).unlink(missing_ok=True)
            if handle is not None:
                os.close(handle)
    finally:
        for path in missing:
            with suppress(OSError):  # what is not empty stays
                path.rmdir()


def _note() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%d %H:%M:%S"), "at": time.time()}


def _taken(folder: Path, note: dict[str, Any]) -> int | None:
    """Lock the folder and leave the note in it; return the handle of the lock, None where the note is the lock."""
    for attempt in range(_ATTEMPTS):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle = _system_lock(folder)
            try:
                if _noted(folder, note, exclusive=handle is None) and _same(handle, folder):
                    return handle
            except BaseException:
                _close(handle)
                raise
            _close(handle)
        except FileNotFoundError:  # whoever had the folder removed it just now
            if attempt == _ATTEMPTS - 1:
                raise
    raise _in_use(folder)


def _system_lock(folder: Path) -> int | None:
    """Return the handle of a lock of the operating system, or None where there are none for folders."""
    if sys.platform == "win32":
        return None
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise _in_use(folder) from None
    except OSError:  # a network folder
        os.close(handle)
        return None
    return handle


def _noted(folder: Path, note: dict[str, Any], *, exclusive: bool) -> bool:
    """Write the note, in the place of one that a dead process left; say whether this was possible.

    Args:
        exclusive: whether the note is the lock, so that one that is there may be of a living process.
    """
    path, holder = folder / NOTE, _read(folder)
    if holder is not None and holder["host"] != note["host"]:
        raise _in_use(folder)
    if exclusive and path.exists():
        if holder is None or _lives(holder["pid"]):
            raise _in_use(folder)
        path.unlink(missing_ok=True)
    try:
        with path.open("x" if exclusive else "w", encoding="utf-8") as stream:
            stream.write(json.dumps(note))
    except FileExistsError:
        return False
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return True


def _read(folder: Path) -> dict[str, Any] | None:
    """Return the note in a folder, or None where there is none that can be read."""
    try:
        note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return note if isinstance(note, dict) and note.keys() == _note().keys() else None


def _in_use(folder: Path) -> KronpressError:
    holder = _read(folder)
    who = "another process" if holder is None else "process {pid} on {host}, since {since}".format(**holder)
    return KronpressError(
        f"{folder} is in use by {who}; wait until it has ended, or name another folder "
        f"(if no such process is left, remove {folder / NOTE})"
    )


def _lives(process: Any) -> bool:
    """Say whether a process of this machine is there, or cannot be asked."""
    if sys.platform == "win32":
        return True
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _same(handle: int | None, folder: Path) -> bool:
    """Say whether the folder is still the one that was locked."""
    return handle is None or os.path.samestat(os.fstat(handle), folder.stat())


def _close(handle: int | None) -> None:
    if handle is not None:
        os.close(handle)
