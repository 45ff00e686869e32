"""The package peft, which not every installation has."""

from __future__ import annotations

from typing import Any

from kronpress.errors import KronpressError


def peft_package() -> Any:
    """Import peft.

    Raises:
        KronpressError: it is missing.
    """
    try:
        import peft
    except ImportError as error:
        raise KronpressError("adapters need peft: run `pip install peft` (the extra `adapters`), then again") from error
    return peft
