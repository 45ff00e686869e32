"""Keep two processes out of one folder."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from kronpress.errors import KronpressError

if sys.platform != "win32":
    import fcntl

NOTE = ".kronpress.lock"
_ATTEMPTS = 100


class InUseError(KronpressError):
    """Another process has the folder.

    Attributes:
        elsewhere: whether it is one of another machine, which may be gone without a trace.
    """

    def __init__(self, message: str, *, elsewhere: bool) -> None:
        super().__init__(message)
        self.elsewhere = elsewhere


@dataclass(frozen=True)
class _Holder:
    """Who has a folder, as the note in it says."""

    pid: int
    host: str
    since: str
    at: float

    @classmethod
    def this_process(cls) -> _Holder:
        return cls(os.getpid(), platform.node(), time.strftime("%Y-%m-%d %H:%M:%S"), time.time())


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a folder if it is missing and keep other processes out of it; folders made here go again if they stay empty.

    The operating system holds the lock, and releases it however this process ends. The note in the folder tells others
    who holds it; on a file system without locks the note itself is the lock.

    Raises:
        InUseError: another process has it; the message names the process, its host and the remedy.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    holder = _Holder.this_process()
    try:
        handle = _taken(folder, holder)
        try:
            yield
        finally:
            if _read(folder) == holder:
                (folder / NOTE).unlink(missing_ok=True)
            if handle is not None:
                os.close(handle)
    finally:
        for path in missing:
            with suppress(OSError):  # what is not empty stays
                path.rmdir()


def _taken(folder: Path, holder: _Holder) -> int | None:
    """Lock a folder and leave the note of its holder in it.

    Returns:
        The handle of the lock; None where the note is the lock.
    """
    for attempt in range(_ATTEMPTS):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle = _system_lock(folder)
            try:
                if _noted(folder, holder, exclusive=handle is None) and _same(handle, folder):
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


def _noted(folder: Path, holder: _Holder, *, exclusive: bool) -> bool:
    """Write a note, in the place of one that a dead process left; say whether this was possible.

    Args:
        exclusive: whether the note is the lock, so that one that is there may be of a living process.
    """
    path, other = folder / NOTE, _read(folder)
    if other is not None and other.host != holder.host:
        raise _in_use(folder)
    if exclusive and path.exists():
        if other is None or _lives(other.pid):
            raise _in_use(folder)
        path.unlink(missing_ok=True)
    try:
        with path.open("x" if exclusive else "w", encoding="utf-8") as stream:
            stream.write(json.dumps(asdict(holder)))
    except FileExistsError:
        return False
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return True


def _read(folder: Path) -> _Holder | None:
    """Return whom the note in a folder names, or None where there is none that can be read."""
    try:
        note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    names = {field.name for field in fields(_Holder)}
    return _Holder(**note) if isinstance(note, dict) and note.keys() == names else None


def _in_use(folder: Path) -> InUseError:
    holder = _read(folder)
    who = "another process" if holder is None else f"process {holder.pid} on {holder.host}, since {holder.since}"
    elsewhere = holder is not None and holder.host != platform.node()
    return InUseError(
        f"{folder} is in use by {who}; wait until it has ended, or name another folder "
        f"(if no such process is left, remove {folder / NOTE})",
        elsewhere=elsewhere,
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
