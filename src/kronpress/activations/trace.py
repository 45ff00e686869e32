"""What a model computes on its way, for losses that look inside."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from kronpress.activations.attention import Attention, computes_plainly, recording
from kronpress.errors import KronpressError
from kronpress.families import layout, vocabulary_size

Reading: TypeAlias = Literal["embedding", "blocks", "feed_forwards", "attentions", "tokens"]


@dataclass
class Trace:
    """Activations of one batch, as far as they were asked for.

    Attributes:
        embedding: what enters the first block, (batch, tokens, dim).
        blocks: what leaves each block, (batch, tokens, dim).
        feed_forwards: what leaves each block's down-projection, (batch, tokens, dim).
        attentions: what enters each block's attention.
        tokens: the ids that the model read.
    """

    embedding: Float[Tensor, "batch tokens dim"] | None = None
    blocks: list[Float[Tensor, "batch tokens dim"]] = field(default_factory=list)
    feed_forwards: list[Float[Tensor, "batch tokens dim"]] = field(default_factory=list)
    attentions: list[Attention] = field(default_factory=list)
    tokens: Int[Tensor, "batch tokens"] | None = None

    def taken(self) -> Float[Tensor, "batch tokens activations dim"]:
        """Return embedding, blocks and feed-forwards, as far as they are there, as one tensor, and forget them."""
        first = [] if self.embedding is None else [self.embedding]
        states = torch.stack([*first, *self.blocks, *self.feed_forwards], dim=2)
        self.embedding = None
        self.blocks.clear()
        self.feed_forwards.clear()
        return states

    @classmethod
    def of(cls, states: Float[Tensor, "batch tokens activations dim"], readings: Collection[Reading]) -> Trace:
        """Return the trace of such readings that `taken` made a tensor of."""
        layers = list(states.unbind(dim=2))
        trace = cls(embedding=layers.pop(0) if "embedding" in readings else None)
        depth = len(layers) // max(1, sum(name in readings for name in ("blocks", "feed_forwards")))
        if "blocks" in readings:
            trace.blocks, layers = layers[:depth], layers[depth:]
        trace.feed_forwards = layers
        return trace


@dataclass(frozen=True)
class Sizes:
    """Depth, width and heads of a model, the width of each head, and how many token ids it knows."""

    depth: int
    dim: int
    heads: int
    head: int
    vocabulary: int = 0

    @classmethod
    def of(cls, model: PreTrainedModel) -> Sizes:
        """Read the sizes from the configuration."""
        config = model.config
        dim, heads = int(config.hidden_size), int(config.num_attention_heads)
        head = int(getattr(config, "head_dim", None) or dim // heads)
        return cls(len(layout(model).block_paths), dim, heads, head, vocabulary_size(model))

    def activations(self, readings: Collection[Reading]) -> int:
        """Return how many vectors the readings are for each token; attention is not one."""
        return ("embedding" in readings) + self.depth * (("blocks" in readings) + ("feed_forwards" in readings))


@contextmanager
def tracing(model: PreTrainedModel, readings: Collection[Reading]) -> Iterator[Trace]:
    """Note the activations of the forward pass inside of the block.

    Raises:
        KronpressError: the model's attention is asked for, and computes otherwise than a loss expects.
    """
    trace, plan = Trace(), layout(model)
    blocks = [model.get_submodule(path) for path in plan.block_paths]
    downs = [model.get_submodule(block.down) for block in plan.feed_forwards]
    with ExitStack() as stack:

        def note(handle: RemovableHandle) -> None:
            stack.callback(handle.remove)

        if "tokens" in readings:
            note(model.register_forward_pre_hook(partial(_read, trace), with_kwargs=True))
        if "embedding" in readings:
            note(blocks[0].register_forward_pre_hook(partial(_enter, trace), with_kwargs=True))
        if "blocks" in readings:
            for block in blocks:
                note(block.register_forward_hook(_keeping(trace.blocks)))
        if "feed_forwards" in readings:
            flattened: list[torch.Size] = []
            note(blocks[0].register_forward_pre_hook(partial(_measure, flattened), with_kwargs=True))
            for down in downs:
                note(down.register_forward_hook(_keeping(trace.feed_forwards, flattened)))
        if "attentions" in readings:
            _require_plain_attention(model)
            stack.enter_context(recording(trace.attentions))
        yield trace


def _require_plain_attention(model: PreTrainedModel) -> None:
    if not computes_plainly(model):
        raise KronpressError(
            f"no loss can look at the attention of a {type(model).__name__}, which caps its scores; choose losses on "
            "predictions, blocks, feed-forwards or the embedding"
        )


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _read(trace: Trace, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    trace.tokens = args[0] if args else kwargs["input_ids"]


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _enter(trace: Trace, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    trace.embedding = args[0] if args else kwargs["hidden_states"]


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _measure(shapes: list[torch.Size], _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    shapes[:] = [(args[0] if args else kwargs["hidden_states"]).shape]


def _keeping(states: list[Tensor], shapes: Sequence[torch.Size] = ()) -> Any:
    """Return a hook that keeps what leaves a module, in the one of `shapes` where the model has flattened it (OPT)."""

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def keep(_: nn.Module, __: Any, output: Any) -> None:
        output = output[0] if isinstance(output, tuple) else output
        states.append(output.view(shapes[0]) if shapes else output)

    return keep
