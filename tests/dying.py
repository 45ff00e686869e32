"""Work in a process that is killed just before a chosen event of the file system."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

KILLED = 9
_CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.truncate", "os.link", "os.symlink"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def killed(work: Callable[[], Any], folder: Path, *, at: int) -> bool:
    """Do the work in a fork that ends, without a word, before change number `at` in `folder`; say whether it ended so.

    Whatever opens, makes, renames or removes a file counts; work that needs fewer changes is done to its end.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of the parent, which the fork does not need
        process = os.fork()
    if process == 0:
        try:
            sys.addaudithook(_death(str(folder), at))
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert code in (0, KILLED), f"the work failed with exit code {code}"
    return code == KILLED


def _death(folder: str, at: int) -> Callable[[str, tuple[Any, ...]], None]:
    left = at

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event == "open":
            path, _, flags = arguments
            counts = isinstance(path, str) and path.startswith(folder) and bool(flags & _WRITES)
        else:  # what is named by a place in an open folder belongs to rmtree
            counts = event in _CHANGES and (
                str(arguments[0]).startswith(folder) or not os.path.isabs(str(arguments[0]))
            )
        left -= counts
        if left <= 0 and counts:
            os._exit(KILLED)

    return look
