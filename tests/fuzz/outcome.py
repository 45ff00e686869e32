"""What one trial comes to: an answer, or a refusal that a user can act on, within a time."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kronpress.errors import KronpressError

SECONDS = 10
_LONGEST = 4000  # characters of a message
_SHOWN = 30


class HangError(BaseException):
    """A trial took too long; no `except Exception` on the way catches it."""


@dataclass(frozen=True)
class Outcome:
    """The answer of a trial, or the error that refused it."""

    value: Any = None
    error: BaseException | None = None

    @property
    def accepted(self) -> bool:
        """Whether there is an answer."""
        return self.error is None


def outcome(trial: Callable[[], Any], *, label: str, refusals: tuple[type[BaseException], ...] = ()) -> Outcome:
    """Run a trial, which may answer or refuse with a KronpressError or one of `refusals`, and nothing else."""
    try:
        with _limited():
            return Outcome(trial())
    except (KronpressError, *refusals) as error:
        if isinstance(error, KronpressError):
            assert 10 < len(str(error)) < _LONGEST, f"{label}: a message of {len(str(error))} characters"
        return Outcome(error=error)
    except BaseException as error:
        raise AssertionError(f"{label}: {type(error).__name__}: {str(error)[:300]}") from error


@contextmanager
def _limited() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise HangError(f"no answer within {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run_trials(count: int, trial: Callable[[int], None]) -> None:
    """Run the trials 0, 1, 2, … and fail at the end with what is wrong in any of them."""
    faults = []
    for number in range(count):
        try:
            trial(number)
        except AssertionError as error:
            faults.append(str(error).splitlines()[0])
    assert not faults, "\n".join([f"{len(faults)} of {count} trials:", *faults[:_SHOWN]])
