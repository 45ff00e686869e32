"""The one traversal: a text streams through the dense and the compressed model, block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from kronpress.activations.progress import WalkProgress
from kronpress.activations.resident import resident
from kronpress.activations.statistics import Statistic
from kronpress.activations.stream import BlockStream
from kronpress.bars import Bar
from kronpress.records import Record

S = TypeVar("S", bound=Statistic)


@dataclass
class Stop(Generic[S]):
    """A block that the walk has come to; the caller may change it before the walk goes on.

    Attributes:
        block: its index.
        statistics: what was asked for, gathered while the block was as it is now.
        changes: of the block so far, which the caller adds to where the walk notes its progress.
        leaving: per batch, what leaves the block after the change, where the caller knows it; else the block runs
            once more. Only that of the last stop at a block counts.
    """

    block: int
    statistics: Sequence[S]
    changes: list[Record]
    leaving: list[Float[Tensor, "windows tokens dim"]] | None = None


def walk(
    model: PreTrainedModel,
    windows: Int[Tensor, "windows tokens"],
    *,
    wanted: Callable[[int], Sequence[S]],
    with_dense: bool = False,
    progress: WalkProgress[Any] | None = None,
    description: str,
) -> Iterator[Stop[S]]:
    """Lead a text through the blocks, stopping at each; the text that comes to a block has seen all changes before it.

    Args:
        model: dense at first; each block may be changed when the walk has come to it, and not before.
        windows: token ids.
        wanted: returns the statistics to gather at a block; asked when the walk comes there. Those of each turn have a
            stop of their own.
        with_dense: lead the text through the dense blocks as well, for statistics that look at both streams.
        progress: notes how far the walk comes; blocks that an interrupted one had finished have no stop.
        description: of the progress bar.
    """
    compressed = BlockStream.begin(model, windows)
    dense = BlockStream.begin(model, windows) if with_dense else None
    streams = [stream for stream in (compressed, dense) if stream is not None]
    if progress is not None:
        progress.restore(model, streams)
    changes: list[list[Record]] = [] if progress is None else progress.changes
    first, total = len(changes), len(compressed.layout.block_paths)
    for block in Bar(range(first, total), desc=description, unit="block", initial=first, total=total):
        with resident(model, block):
            statistics = wanted(block)
            changes.append([])
            if dense is not None:
                _look_at_dense(model, statistics, block=block, stream=dense)
            turns = sorted({statistic.turn for statistic in statistics}) or [0]
            for turn in turns:
                stop = Stop(block, [statistic for statistic in statistics if statistic.turn == turn], changes[block])
                _look_at_compressed(model, stop, stream=compressed)
                yield stop
            if stop.leaving is None:
                compressed.advance(model, block=block)
            else:
                compressed.hidden = stop.leaving
            del statistics  # whose memory the next ones need
        if progress is not None:
            progress.keep(model, streams)


@torch.no_grad()
def _look_at_dense(model: PreTrainedModel, statistics: Sequence[Statistic], *, block: int, stream: BlockStream) -> None:
    """Move the dense stream past a block that is still dense, and let all statistics look at it."""
    with _watched(model, statistics):
        for index, output in stream.outputs(model, block=block):
            stream.hidden[index] = output
            for statistic in statistics:
                statistic.after_dense(index, output)


@torch.no_grad()
def _look_at_compressed(model: PreTrainedModel, stop: Stop[S], *, stream: BlockStream) -> None:
    """Gather the statistics of a stop; the stream stays where it is."""
    if not stop.statistics:
        return
    with _watched(model, stop.statistics):
        for index, output in stream.outputs(model, block=stop.block):
            for statistic in stop.statistics:
                statistic.after_compressed(index, output)


@contextmanager
def _watched(model: PreTrainedModel, statistics: Sequence[Statistic]) -> Iterator[None]:
    with ExitStack() as watching:
        for statistic in statistics:
            watching.enter_context(statistic.watching(model))
        yield
