"""Several processes that train together, as torchrun starts them: which of them this is, and how they wait."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import torch
from torch import distributed

Value = TypeVar("Value")

_PATIENCE = timedelta(days=7)  # the others wait while the main process factorizes


def count() -> int:
    """Return how many processes work on this run."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_RANK" in os.environ else 1


def rank() -> int:
    """Return the number of this process among all of them."""
    return int(os.environ.get("RANK", "0")) if count() > 1 else 0


def is_main() -> bool:
    """Say whether this process is the one that writes and reports."""
    return rank() == 0


def connect() -> None:
    """Meet the other processes, if there are any; each takes a GPU of its own where there are some."""
    if count() == 1:
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=_PATIENCE)
    _messages()


@contextmanager
def together() -> Iterator[None]:
    """Wait at the end for all processes; if one fails, it raises and the others end without a word.

    If the main process is among those that fail, it alone raises. Those that end say success, since torchrun would
    otherwise stop the one that fails before it has told why.
    """
    try:
        yield
    except Exception:
        if rank() in _speakers(failed=True):
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
