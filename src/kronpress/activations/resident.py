"""Models larger than memory: the numbers of all blocks stay in files, and those of one are in memory at a time.

What is computed is what the same model in float32 computes, to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kronpress.activations.block_files import block_file, read_block, write_block
from kronpress.families import base_prefix, layout


@contextmanager
def blocks_in_files(model: PreTrainedModel, folder: Path, *, dtype: torch.dtype) -> Iterator[None]:
    """Let a model compute in float32 though its numbers are of another format and lie in files, as they are opened.

    A block is in float32 from when it is called, or is `resident`, to when another one is. So are the rows of the token
    table that are looked up, and all that is small. An output head stays as it is.

    Args:
        model: on the CPU.
        folder: for the finished blocks, which the model reads from then on.
        dtype: number format in which they are written.
    """
    blocks = _Blocks(model, folder, dtype)
    with ExitStack() as held:
        for index, path in enumerate(layout(model).block_paths):
            hook = partial(blocks.take_called, index)
            held.callback(model.get_submodule(path).register_forward_pre_hook(hook).remove)
        held.enter_context(_small_in_float32(model))
        token = _current.set(blocks)
        held.callback(_current.reset, token)
        held.callback(blocks.give_back)
        yield


@contextmanager
def resident(model: PreTrainedModel, block: int | None) -> Iterator[None]:
    """Let a block be in memory in float32, to be changed; at the end it is written and stays in its file.

    Where the model does not stay in files, or `block` is None, nothing happens.
    """
    blocks = _current.get()
    if blocks is None or blocks.model is not model or block is None:
        yield
        return
    blocks.take(block)
    yield
    blocks.put(block)


def stays_in_files(model: PreTrainedModel) -> bool:
    """Say whether the blocks of a model stay in files."""
    blocks = _current.get()
    return blocks is not None and blocks.model is model


def parked(model: PreTrainedModel, states: Tensor) -> Tensor:
    """Return states of a text that are read again when a block has been looked at, and then no more.

    Where the blocks of the model stay in files, they go into a file too, whose room is free again with the tensor.
    """
    blocks = _current.get()
    return states if blocks is None or blocks.model is not model else blocks.park(states)


@dataclass
class _Blocks:
    """The blocks of a model that stay in files, and what the one that is in memory has in its file."""

    model: PreTrainedModel
    folder: Path
    dtype: torch.dtype
    _taken: int | None = None
    _stored: Sequence[tuple[nn.Parameter, Tensor]] = field(default=(), repr=False)

    def take_called(self, index: int, *_: Any) -> None:
        """Have a block in memory, as a hook does."""
        self.take(index)

    def take(self, index: int) -> None:
        """Have a block in memory, and no other."""
        if index != self._taken:
            self.give_back()
            self._stored = _in_float32(self._block(index).parameters())
            self._taken = index

    def give_back(self) -> None:
        """Have no block in memory; the one that was there is as it was."""
        _restore(self._stored)
        self._taken, self._stored = None, ()

    def put(self, index: int) -> None:
        """Write the block that is in memory, and leave it to its file."""
        self._taken, self._stored = None, ()
        block, path = self._block(index), block_file(self.folder, index)
        for parameter in block.parameters():
            parameter.data = parameter.data.to(self.dtype)
        write_block(path, block)
        read_block(self.model, layout(self.model).block_paths[index], path=path, mapped=True)

    def park(self, states: Tensor) -> Tensor:
        """Return a tensor that lies in a file without a name."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=self.folder) as file:
            there = torch.from_file(file.name, shared=True, size=states.numel(), dtype=states.dtype)
        return there.view(states.shape).copy_(states)

    def _block(self, index: int) -> nn.Module:
        return self.model.get_submodule(layout(self.model).block_paths[index])


_current: ContextVar[_Blocks | None] = ContextVar("blocks in files", default=None)


def _in_float32(parameters: Iterator[nn.Parameter]) -> list[tuple[nn.Parameter, Tensor]]:
    """Put parameters into memory, and return what they were."""
    stored = [(parameter, parameter.data) for parameter in parameters]
    for parameter, data in stored:
        parameter.data = data.float()
    return stored


def _restore(stored: Sequence[tuple[nn.Parameter, Tensor]]) -> None:
    for parameter, data in stored:
        parameter.data = data


@contextmanager
def _small_in_float32(model: PreTrainedModel) -> Iterator[None]:
    """Have in float32 what of the base model is in no block, and of the token table the rows that are looked up."""
    base, table = model.get_submodule(base_prefix(model).rstrip(".")), model.get_input_embeddings()
    inside = [model.get_submodule(path) for path in layout(model).block_paths]
    large = {id(parameter) for block in inside for parameter in block.parameters()}
    with ExitStack() as held:
        if isinstance(table, nn.Embedding):
            large.add(id(table.weight))
            held.enter_context(_rows_in_float32(table))
        small = (parameter for parameter in base.parameters() if id(parameter) not in large)
        held.callback(_restore, _in_float32(small))
        yield


@contextmanager
def _rows_in_float32(table: nn.Embedding) -> Iterator[None]:
    """Let a table look up its rows in float32."""
    weight, padding = table.weight.data, table.padding_idx

    def narrow(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        rows, places = args[0].unique(return_inverse=True)
        table.weight.data, table.padding_idx = weight[rows].float(), None  # the padding counts in training alone
        return (places, *args[1:])

    def whole(*_: Any) -> None:
        table.weight.data, table.padding_idx = weight, padding

    handles = [table.register_forward_pre_hook(narrow), table.register_forward_hook(whole, always_call=True)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
