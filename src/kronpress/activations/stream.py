"""A text on its way through a model, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from kronpress.families import Layout, base_prefix, layout
from kronpress.precision import mixed_precision

_BATCH_TOKENS = 4096


@dataclass
class BlockStream:
    """Hidden states of a text on their way through the blocks of a model.

    Attributes:
        hidden: per batch, (windows, tokens, dimension): what enters the next block.
        arguments: per block, the other positional and keyword arguments that the model gives it.
    """

    layout: Layout
    hidden: list[Float[Tensor, "windows tokens dim"]]
    arguments: list[tuple[tuple[Any, ...], dict[str, Any]]] = field(repr=False)

    @classmethod
    @torch.no_grad()
    def begin(
        cls, model: PreTrainedModel, windows: Int[Tensor, "windows tokens"], *, at_once: int | None = None
    ) -> BlockStream:
        """Embed the windows and note how the model calls its blocks.

        A batch is of `at_once` windows, a divisor of their number; by default of about 4,096 tokens.
        """
        plan = layout(model)
        size = at_once or batch_size(*windows.shape)
        arguments: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        hidden: list[Tensor] = []

        def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if not arguments:
                hidden.append(_hidden(args, kwargs))
            rest = {name: value for name, value in kwargs.items() if name != "hidden_states"}
            arguments.append((args[1:], rest))

        def stop(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            hidden.append(_hidden(args, kwargs))
            raise _Reached

        blocks = [model.get_submodule(path) for path in plan.block_paths]
        first, *others = windows.to(model.device).split(size)
        base = model.get_submodule(base_prefix(model).rstrip("."))
        with _hooks(blocks, note), mixed_precision(model.device, cached=False):  # blocks may lie in files
            base(input_ids=first, **_no_cache(model))
        with _hooks(blocks[:1], stop):
            for batch in others:
                _embed(base, batch)
        return cls(plan, hidden, arguments)

    @torch.no_grad()
    def outputs(self, model: PreTrainedModel, *, block: int) -> Iterator[tuple[int, Tensor]]:
        """Run a block on each batch, giving (batch index, output); the stream itself stays where it is."""
        for index, hidden in enumerate(self.hidden):
            yield index, self.output(model, hidden, block=block)

    def output(self, model: PreTrainedModel, hidden: Tensor, *, block: int) -> Tensor:
        """Return what a block gives for a batch that enters it; gradients flow."""
        args, kwargs = self.arguments[block]
        with mixed_precision(model.device):
            output = model.get_submodule(self.layout.block_paths[block])(hidden, *args, **kwargs)
        given: Tensor = output[0] if isinstance(output, tuple) else output
        return given

    def advance(self, model: PreTrainedModel, *, block: int) -> None:
        """Move the stream past a block."""
        for index, output in self.outputs(model, block=block):
            self.hidden[index] = output


class _Reached(Exception):  # noqa: N818  (a signal, not an error)
    pass


@contextmanager
def _hooks(modules: list[nn.Module], hook: Any) -> Iterator[None]:
    handles = [module.register_forward_pre_hook(hook, with_kwargs=True) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _embed(base: nn.Module, batch: Tensor) -> None:
    try:
        base(input_ids=batch)
    except _Reached:
        return
    raise AssertionError("the model never reached its first block")


def _hidden(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    hidden = args[0] if args else kwargs["hidden_states"]
    assert isinstance(hidden, Tensor)
    return hidden.float()


def _no_cache(model: PreTrainedModel) -> dict[str, bool]:
    return {"use_cache": False} if layout(model).family.causal else {}


def batch_size(windows: int, tokens: int) -> int:
    """Return the largest divisor of `windows` whose batch has about 4,096 tokens: all batches are then alike."""
    largest = max(1, _BATCH_TOKENS // tokens)
    return max(size for size in range(1, largest + 1) if windows % size == 0)
