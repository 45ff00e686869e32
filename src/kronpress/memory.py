"""The memory of this process: how much it took, and keeping what was freed for the next batch."""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Mapping
from pathlib import Path

if sys.platform != "win32":
    import resource

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4  # malloc.h of glibc
_NEVER = 2**31 - 1
_USUAL = {_M_MMAP_MAX: 2**16, _M_MMAP_THRESHOLD: 2**25, _M_TRIM_THRESHOLD: 2**26}  # what glibc comes to by itself
_MEMINFO = Path("/proc/meminfo")


def keep_freed_memory() -> None:
    """Tell glibc not to return the large temporaries of a batch to the kernel; elsewhere do nothing.

    By default every tensor above 32 MB is mapped afresh and its pages are zeroed again at each batch, which
    takes about as long as the arithmetic of a small model with a large vocabulary.
    """
    _tell_malloc({_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: _NEVER})


def return_freed_memory() -> None:
    """Take back `keep_freed_memory`, where memory is short: what is larger than 32 MB is returned as it is freed."""
    _tell_malloc(_USUAL)


def _tell_malloc(settings: Mapping[int, int]) -> None:
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        for name, value in settings.items():
            mallopt(name, value)


def available_bytes() -> int | None:
    """Return how much memory could be taken without swapping; None where the platform does not tell."""
    if not _MEMINFO.exists():
        return None
    told = re.search(r"^MemAvailable:\s+(\d+) kB$", _MEMINFO.read_text(), re.MULTILINE)
    return None if told is None else int(told[1]) * 1024


def peak_rss_bytes() -> int:
    """Return the most memory in bytes that this process has held so far; 0 where the platform does not tell."""
    if sys.platform == "win32":
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux kibibytes
