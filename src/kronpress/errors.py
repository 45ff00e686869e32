"""The one exception that means: the user can mend this."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class KronpressError(ValueError):
    """A mistake in the input; the message names the value, the place and the remedy.

    The command line prints it without a traceback and exits with status 1.
    """


def did_you_mean(value: str, choices: Iterable[str]) -> str:
    """Return a sentence that names the nearest of `choices`, and all of them if they are few."""
    known = sorted(choices)
    near = difflib.get_close_matches(value, known, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"{hint}choose one of: {', '.join(known)}"
