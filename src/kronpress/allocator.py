"""Keep freed memory for the next batch instead of handing it back to the system."""

from __future__ import annotations

import ctypes
import sys

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
