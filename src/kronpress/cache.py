"""Where kronpress keeps what it can make again: the user's cache."""

from __future__ import annotations

import os
from pathlib import Path

from kronpress.errors import KronpressError

VARIABLE = "KRONPRESS_CACHE"
"""The variable of the environment that names another folder for the cache."""


def cache_folder() -> Path:
    """Return the folder of the cache, which may be absent: `kronpress` in the user's cache, unless a variable says.

    Raises:
        KronpressError: there is no such user.
    """
    named = os.environ.get(VARIABLE)
    users = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    folder = Path(named) if named else users / "kronpress"
    try:
        return folder.expanduser()
    except RuntimeError as error:  # of a user who is not known
        raise KronpressError(
            f"the folder of the cache, {str(folder)[:200]}, is no path ({error}); set {VARIABLE}"
        ) from None
