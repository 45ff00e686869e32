"""The one exception that means: the user can mend this."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable

_LINE = 100  # characters of a user's value in a message
_CHOICES = 60
_NAMES = 20


def _shortener() -> reprlib.Repr:
    short = reprlib.Repr()
    short.maxlevel = 3
    short.maxdict = short.maxlist = short.maxtuple = short.maxset = 6
    short.maxstring = short.maxother = short.maxlong = 80
    return short


_SHORT = _shortener()


class KronpressError(ValueError):
    """A mistake in the input; the message names the value, the place and the remedy.

    The command line prints it without a traceback and exits with status 1.
    """


def shown(value: object) -> str:
    """Return a value of the user's for a message: as Python writes it, and at most a line of it.

    >>> len(shown("a" * 1000))
    80
    >>> shown([[[[1]]], 2])
    '[[[...]], 2]'
    """
    try:
        text = _SHORT.repr(value)
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        text = "a number of thousands of digits"
    return text if len(text) <= _LINE else f"{text[: _LINE - 3]}..."


def listed(names: Iterable[str]) -> str:
    """Return names of the user's with commas between them, as many as a message has room for.

    >>> listed(["a", "b"]), listed([])
    ('a, b', 'none at all')
    """
    every = list(names)
    more = f" and {len(every) - _NAMES} more" if len(every) > _NAMES else ""
    return ", ".join(name[:_LINE] for name in every[:_NAMES]) + more if every else "none at all"


def did_you_mean(value: object, choices: Iterable[str]) -> str:
    """Return a sentence that names the nearest of `choices`, and all of them if they are few."""
    known = sorted(choices)
    near = difflib.get_close_matches(value[:_LINE], known, n=1, cutoff=0.5) if isinstance(value, str) else []
    hint = f"did you mean '{near[0]}'? " if near else ""
    more = f" and {len(known) - _CHOICES} more" if len(known) > _CHOICES else ""
    return f"{hint}choose one of: {', '.join(known[:_CHOICES])}{more}"
