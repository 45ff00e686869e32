"""Several processes that train together, as torchrun starts them: which of them this is, and how they wait."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import torch
from torch import distributed

from kronpress.errors import KronpressError

Value = TypeVar("Value")

_TOLD = "told_to_the_other_processes"  # attribute of errors
_PATIENCE = timedelta(days=7)  # the others wait while the main process factorizes


def count() -> int:
    """Return how many processes work on this run.

    Raises:
        KronpressError: WORLD_SIZE is no such number.
    """
    return _number("WORLD_SIZE", low=1) if {"LOCAL_RANK", "WORLD_SIZE"} <= os.environ.keys() else 1


def rank() -> int:
    """Return the number of this process among all of them.

    Raises:
        KronpressError: RANK is no such number.
    """
    return _number("RANK", high=count() - 1) if count() > 1 else 0


def is_main() -> bool:
    """Say whether this process is the one that writes and reports."""
    return rank() == 0


def connect() -> None:
    """Meet the other processes, if there are any; each takes a GPU of its own where there are some.

    Raises:
        KronpressError: what the environment says of the processes is not so, or they do not meet.
    """
    if count() == 1:
        return
    rank()
    local = _number("LOCAL_RANK", high=count() - 1)
    _require_address()
    if torch.cuda.is_available():
        if local >= torch.cuda.device_count():
            raise KronpressError(
                f"LOCAL_RANK is {local}, and this machine has {torch.cuda.device_count()} GPUs; start at most one "
                "process for each with torchrun --nproc-per-node"
            )
        torch.cuda.set_device(local)
    try:
        if not distributed.is_initialized():
            distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=_PATIENCE)
    except (RuntimeError, ValueError, OSError) as error:
        address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        reason = " ".join(str(error).split())[:200]
        raise KronpressError(
            f"the processes cannot meet at MASTER_ADDR:MASTER_PORT, {address} ({reason}); start them with torchrun"
        ) from error
    _messages()


def _number(name: str, *, low: int = 0, high: int | None = None) -> int:
    """Return the number in a variable of the environment, which torchrun sets.

    Raises:
        KronpressError: there is none, or one out of bounds.
    """
    text = os.environ.get(name, "")
    value = int(text) if text.isdecimal() and text.isascii() and len(text) < 10 else -1
    if value < low or (high is not None and value > high):
        allowed = f"at least {low}" if high is None else f"from {low} to {high}"
        raise KronpressError(
            f"the environment variable {name} is '{text[:100]}' and must be a whole number, {allowed}; "
            "start the processes with torchrun, or unset LOCAL_RANK to run in one"
        )
    return value


def _require_address() -> None:
    """Check that the environment says where the processes meet.

    Raises:
        KronpressError: it does not, or no machine has this name.
    """
    host = os.environ.get("MASTER_ADDR", "")
    port = _number("MASTER_PORT", low=1, high=65535)
    try:
        if not host:
            raise OSError("it is empty")
        socket.getaddrinfo(host, port)
    except (OSError, UnicodeError) as error:
        raise KronpressError(
            f"the environment variable MASTER_ADDR is '{host[:100]}' and must be the name of the machine where the "
            f"processes meet ({error}); start them with torchrun, or unset LOCAL_RANK to run in one"
        ) from error


@contextmanager
def together() -> Iterator[None]:
    """Wait at the end for all processes; if one fails, it raises and the others end without a word.

    If the main process is among those that fail, it alone raises. Those that end say success, since torchrun would
    otherwise stop the one that fails before it has told why.
    """
    try:
        yield
    except Exception as error:
        if getattr(error, _TOLD, False):  # inside of this, where the others have ended
            raise
        if rank() in _speakers(failed=True):
            setattr(error, _TOLD, True)
            raise
        raise SystemExit(0) from None
    if _speakers(failed=False):
        raise SystemExit(0)


def from_main(work: Callable[[], Value]) -> Value:
    """Return in all processes what `work` gives in the main one."""
    if count() == 1:
        return work()
    shared: list[Any] = [None]
    with together():
        if is_main():
            shared[0] = work()
    distributed.broadcast_object_list(shared, src=0, group=_messages())
    value: Value = shared[0]
    return value


@cache
def _messages() -> Any:
    """Return the group for what processes tell each other, apart from that for gradients."""
    return distributed.new_group(backend="gloo", timeout=_PATIENCE)


def _speakers(*, failed: bool) -> list[int]:
    """Return which of the processes that failed are to say so."""
    if count() == 1:
        return [0] if failed else []
    everyone = [torch.zeros(1, dtype=torch.int64) for _ in range(count())]
    distributed.all_gather(everyone, torch.tensor([int(failed)]), group=_messages())
    found = [index for index, each in enumerate(everyone) if each.item()]
    return [0] if 0 in found else found
