"""Traces of random numbers, as a model of three blocks would leave them."""

from __future__ import annotations

import torch

from kronpress.activations.attention import Attention
from kronpress.activations.trace import Sizes, Trace

BATCH, TOKENS, DIM, DEPTH, HEADS, GROUPS = 2, 6, 8, 3, 4, 2
VOCABULARY = 20
SIZES = Sizes(depth=DEPTH, dim=DIM, heads=HEADS, head=DIM // HEADS, vocabulary=VOCABULARY)


def some_trace(
    *, seed: int = 0, size: float = 1.0, depth: int = DEPTH, dim: int = DIM, dtype: torch.dtype = torch.float32
) -> Trace:
    """Activations of magnitude `size`; all of them are leaves that ask for a gradient."""
    generator = torch.Generator().manual_seed(seed)

    def some(*shape: int) -> torch.Tensor:
        return (size * torch.randn(shape, generator=generator)).to(dtype).requires_grad_()

    states = [some(BATCH, TOKENS, dim) for _ in range(2 * depth + 1)]
    visible = torch.ones(1, 1, TOKENS, TOKENS, dtype=torch.bool).tril()
    heads = [[some(BATCH, count, TOKENS, dim // HEADS) for count in (HEADS, GROUPS, GROUPS)] for _ in range(depth)]
    attentions = [Attention(*each, scaling=(dim // HEADS) ** -0.5, visible=visible) for each in heads]
    ids = torch.arange(BATCH * TOKENS).view(BATCH, TOKENS) % (TOKENS - 1)  # one of each text comes twice
    return Trace(states[0], states[1 : depth + 1], states[depth + 1 :], attentions, ids)


def leaves(trace: Trace) -> list[torch.Tensor]:
    """All tensors of a trace that losses compare."""
    inside = [each for one in trace.attentions for each in (one.query, one.key, one.value)]
    return [*trace.blocks, *trace.feed_forwards, *inside, *([] if trace.embedding is None else [trace.embedding])]


def in_single_precision(trace: Trace) -> Trace:
    """The same numbers."""
    assert trace.embedding is not None
    heads = [
        Attention(each.query.float(), each.key.float(), each.value.float(), each.scaling, each.visible)
        for each in trace.attentions
    ]
    states = ([each.float() for each in found] for found in (trace.blocks, trace.feed_forwards))
    return Trace(trace.embedding.float(), *states, heads, trace.tokens)


def all_seen() -> torch.Tensor:
    """No token is padding."""
    return torch.ones(BATCH, TOKENS, dtype=torch.bool)
