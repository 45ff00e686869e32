"""What a model computes on its way, for losses that look inside."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from kronpress.activations.attention import Attention, recording
from kronpress.families import layout

Reading: TypeAlias = Literal["embedding", "blocks", "feed_forwards", "attentions"]


@dataclass
class Trace:
    """Activations of one batch, as far as they were asked for.

    Attributes:
        embedding: what enters the first block, (batch, tokens, dim).
        blocks: what leaves each block, (batch, tokens, dim).
        feed_forwards: what leaves each block's down-projection, (batch, tokens, dim).
        attentions: what enters each block's attention.
    """

    embedding: Float[Tensor, "batch tokens dim"] | None = None
    blocks: list[Float[Tensor, "batch tokens dim"]] = field(default_factory=list)
    feed_forwards: list[Float[Tensor, "batch tokens dim"]] = field(default_factory=list)
    attentions: list[Attention] = field(default_factory=list)

    def taken(self) -> Float[Tensor, "batch tokens activations dim"]:
        """Return embedding, blocks and feed-forwards, as far as they are there, as one tensor, and forget them."""
        found = [] if self.embedding is None else [self.embedding]
        states = torch.stack([*found, *self.blocks, *self.feed_forwards], dim=2)
        self.embedding = None
        self.blocks.clear()
        self.feed_forwards.clear()
        return states

    @classmethod
    def of(cls, states: Float[Tensor, "batch tokens activations dim"], readings: Collection[Reading]) -> Trace:
        """Return the trace of such readings that `taken` made a tensor of."""
        found = list(states.unbind(dim=2))
        trace = cls(embedding=found.pop(0) if "embedding" in readings else None)
        depth = len(found) // max(1, sum(name in readings for name in ("blocks", "feed_forwards")))
        if "blocks" in readings:
            trace.blocks, found = found[:depth], found[depth:]
        trace.feed_forwards = found
        return trace


@dataclass(frozen=True)
class Sizes:
    """Depth, width and heads of a model, and the width of each head."""

    depth: int
    dim: int
    heads: int
    head: int

    @classmethod
    def of(cls, model: PreTrainedModel) -> Sizes:
        """Read the sizes from the configuration."""
        config = model.config
        dim, heads = int(config.hidden_size), int(config.num_attention_heads)
        return cls(len(layout(model).block_paths), dim, heads, int(getattr(config, "head_dim", None) or dim // heads))

    def activations(self, readings: Collection[Reading]) -> int:
        """Return how many vectors the readings are for each token; attention is not one."""
        return ("embedding" in readings) + self.depth * (("blocks" in readings) + ("feed_forwards" in readings))


@contextmanager
def tracing(model: PreTrainedModel, readings: Collection[Reading]) -> Iterator[Trace]:
    """Note the activations of the forward pass inside of the block."""
    trace, plan = Trace(), layout(model)
    blocks = [model.get_submodule(path) for path in plan.block_paths]
    downs = [model.get_submodule(block.down) for block in plan.feed_forwards]
    with ExitStack() as stack:

        def note(handle: RemovableHandle) -> None:
            stack.callback(handle.remove)

        if "embedding" in readings:
            note(blocks[0].register_forward_pre_hook(partial(_enter, trace), with_kwargs=True))
        for modules, found, name in ((blocks, trace.blocks, "blocks"), (downs, trace.feed_forwards, "feed_forwards")):
            for module in modules if name in readings else []:
                note(module.register_forward_hook(_keeping(found)))
        if "attentions" in readings:
            stack.enter_context(recording(trace.attentions))
        yield trace


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _enter(trace: Trace, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    trace.embedding = args[0] if args else kwargs["hidden_states"]


def _keeping(found: list[Tensor]) -> Any:
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def keep(_: nn.Module, __: Any, output: Any) -> None:
        found.append(output[0] if isinstance(output, tuple) else output)

    return keep
