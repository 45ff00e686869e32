"""What is made of large texts once and kept in the cache: by one process at a time, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from kronpress import processes
from kronpress.cache import VARIABLE, cache_folder
from kronpress.checkpoint import files
from kronpress.errors import KronpressError
from kronpress.lock import InUseError, locked

_FORMAT = 1  # of all that is made; another number when the same facts come to stand for something else
_SECONDS = 0.2  # between two looks at a folder in which another process works
_ELSEWHERE = f"the environment variable {VARIABLE} names another folder for the cache"


def key_of(*facts: Any) -> str:
    """Return what tells facts from others, in hexadecimal: the name of what is made of them."""
    return hashlib.sha256(json.dumps([_FORMAT, *facts], sort_keys=True).encode()).hexdigest()[:40]


def cached(kind: str, key: str) -> Path:
    """Return the folder in the cache for things of a kind that are told apart by `key`; it may be absent."""
    return cache_folder() / kind / key


@contextmanager
def making(folder: Path, *, needed: int) -> Iterator[None]:
    """Keep other processes out of a folder of the cache, which is made if it is missing; wait for one that is in it.

    A process of another machine is not waited for: it may have ended without a trace.

    What that process has made is there afterwards, so look again.

    Args:
        needed: bytes that are about to be written.

    Raises:
        KronpressError: the folder cannot be written into, or the disk is full; the message says how to choose another.
    """
    try:
        with ExitStack() as held:
            try:
                files.require_possible(folder)
                held.enter_context(_locked_in_turn(folder))
                files.require_space(folder, needed=needed)
            except KronpressError as error:
                raise KronpressError(f"{error} ({_ELSEWHERE})") from None
            yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise KronpressError(
            f"cannot write into the cache, {folder}: {reason}; free some space, or choose another disk: {_ELSEWHERE}"
        ) from error


@contextmanager
def _locked_in_turn(folder: Path) -> Iterator[None]:
    told = False
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(locked(folder))
                break
            except InUseError as error:
                if error.elsewhere:
                    raise
                if not told and processes.is_main():
                    tqdm.write(f"note: waiting for another process that makes the same: {error}")
                told = True
                time.sleep(_SECONDS)
        yield
