"""The packages that cleaning needs beyond those of kronpress itself."""

from __future__ import annotations

import importlib
from typing import Any

from kronpress.errors import KronpressError


def needed(module: str, *, by: str, package: str) -> Any:
    """Import a module of another package, named as it is installed; `by` names the setting that needs it.

    Raises:
        KronpressError: the package is missing.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise KronpressError(f"{by} needs the package {package}; pip install {package}") from None
