"""Where kronpress keeps what it can make again: the user's cache."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "KRONPRESS_CACHE"
"""The variable of the environment that names another folder for the cache."""


def cache_folder() -> Path:
    """Return the folder of the cache, which may be absent: `kronpress` in the user's cache, unless a variable says."""
    named = os.environ.get(VARIABLE)
    users = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return (Path(named) if named else users / "kronpress").expanduser()
