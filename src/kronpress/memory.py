"""The memory of this process: how much it took, and keeping what was freed for the next batch."""

from __future__ import annotations

import ctypes
import sys

if sys.platform != "win32":
    import resource

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h of glibc
_NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Tell glibc not to return the large temporaries of a batch to the kernel; elsewhere do nothing.

    By default every tensor above 32 MB is mapped afresh and its pages are zeroed again at each batch, which
    takes about as long as the arithmetic of a small model with a large vocabulary.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, _NEVER)


def peak_rss_bytes() -> int:
    """Return the most memory in bytes that this process has held so far; 0 where the platform does not tell."""
    if sys.platform == "win32":
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux kibibytes
