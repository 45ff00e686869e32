"""Attention for training: fast on CPUs, and it lets losses see what it works on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "kronpress_training"
_BLOCK = 128  # queries that are attended together
_recorder: ContextVar[list[Attention] | None] = ContextVar("recorder", default=None)


@dataclass(frozen=True)
class Attention:
    """What an attention layer is given, after rotation by positions.

    Attributes:
        query: (batch, heads, tokens, d).
        key: (batch, groups, tokens, d), each for heads ÷ groups heads that follow each other.
        value: as `key`.
        scaling: factor of the scores query · key.
        visible: which key each query may look at, (batch or 1, 1, tokens, tokens).
    """

    query: Float[Tensor, "batch heads tokens d"]
    key: Float[Tensor, "batch groups tokens d"]
    value: Float[Tensor, "batch groups tokens d"]
    scaling: float
    visible: Bool[Tensor, "_ 1 tokens tokens"]


@contextmanager
def recording(attentions: list[Attention]) -> Iterator[None]:
    """Add what every attention layer is given in the block to a list; the models must use `training_attention`."""
    token = _recorder.set(attentions)
    try:
        yield
    finally:
        _recorder.reset(token)


@contextmanager
def training_attention(*models: PreTrainedModel) -> Iterator[None]:
    """Let the models use this module's attention inside of the block, but for those whose own computes otherwise.

    Gemma 2 caps its scores, which neither this nor transformers' `sdpa` does.
    """
    models = tuple(model for model in models if computes_plainly(model))
    before = [model.config._attn_implementation for model in models]
    try:
        for model in models:
            model.set_attn_implementation(NAME)
        yield
    finally:
        for model, name in zip(models, before, strict=True):
            model.set_attn_implementation(name)


def computes_plainly(model: PreTrainedModel) -> bool:
    """Tell whether the attention of a model is that of this module."""
    return bool(model._supports_sdpa)


@torch.compiler.disable  # type: ignore[untyped-decorator]  # it notes what it is given
def attend(
    module: nn.Module, *inputs: Tensor | None, **options: Any
) -> tuple[Float[Tensor, "batch tokens heads d"], None]:
    """Attend as `sdpa` does, by blocks where that is faster: on a CPU in bfloat16, causal, without mask and dropout.

    The inputs are query, key, value and mask, in transformers' order.
    """
    query, key, value, attention_mask = inputs
    assert query is not None and key is not None and value is not None
    causal = bool(getattr(module, "is_causal", True)) and attention_mask is None
    scaling = float(options.get("scaling") or query.shape[-1] ** -0.5)
    attentions = _recorder.get()
    if attentions is not None:
        attentions.append(Attention(query, key, value, scaling, _visible(query, attention_mask, causal=causal)))
    half = value.device.type == "cpu" and value.dtype == torch.bfloat16
    if half and causal and not options.get("dropout") and query.shape[2] == key.shape[2] > 1:
        with torch.autocast("cpu", enabled=False):
            apply: Any = _CausalBlocks.apply
            output: Tensor = apply(query.to(value.dtype), key.to(value.dtype), value, scaling)
        return output.transpose(1, 2).contiguous(), None
    result: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    return result


def _visible(query: Tensor, mask: Tensor | None, *, causal: bool) -> Bool[Tensor, "_ 1 tokens tokens"]:
    if mask is not None:
        return mask if mask.dtype == torch.bool else mask > -1
    every = torch.ones(1, 1, query.shape[2], query.shape[2], dtype=torch.bool, device=query.device)
    return every.tril() if causal else every


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)


class _CausalBlocks(torch.autograd.Function):
    """softmax(scaling · q kᵀ) v, a block of queries at a time with the keys that it may look at.

    Heads that share a key are rows of one matrix product. Probabilities are formed again in the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        shape = query.shape
        groups = shape[0] * key.shape[1]
        q = (query * scaling).reshape(groups, -1, *shape[2:])
        k, v = key.reshape(groups, *shape[2:]), value.reshape(groups, *shape[2:])
        output = torch.empty_like(q)
        for start in range(0, shape[2], _BLOCK):
            rows = slice(start, min(start + _BLOCK, shape[2]))
            p = _probabilities(q[:, :, rows], k[:, : rows.stop])
            output[:, :, rows] = _times(p, v[:, : rows.stop])
        ctx.save_for_backward(q, k, v)
        ctx.shapes, ctx.scaling = (shape, key.shape), scaling
        return output.view(shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v = ctx.saved_tensors
        gradient = gradients[0].reshape(q.shape)
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        with torch.autocast("cpu", enabled=False):
            for start in range(0, q.shape[2], _BLOCK):
                rows = slice(start, min(start + _BLOCK, q.shape[2]))
                seen, some, upper = slice(0, rows.stop), q[:, :, rows], gradient[:, :, rows]
                p = _probabilities(some, k[:, seen])
                dv[:, seen] += _transposed_times(p, upper)
                dp = _times(upper, v[:, seen].transpose(1, 2))
                ds = torch._softmax_backward_data(dp, p, -1, p.dtype)
                dq[:, :, rows] = _times(ds, k[:, seen])
                dk[:, seen] += _transposed_times(ds, some)
        queries, keys = ctx.shapes
        return (dq * ctx.scaling).view(queries), dk.view(keys), dv.view(keys), None


def _probabilities(q: Float[Tensor, "g r n d"], k: Float[Tensor, "g seen d"]) -> Float[Tensor, "g r n seen"]:
    """Return the attention of queries that are the last `n` of the tokens seen."""
    scores, n = _times(q, k.transpose(1, 2)), q.shape[2]
    later = torch.ones(n, n, dtype=torch.bool, device=q.device).triu(1)
    scores[..., -n:].masked_fill_(later, -torch.inf)
    return torch.softmax(scores, dim=-1)


def _times(rows: Float[Tensor, "g r n a"], matrix: Float[Tensor, "g a b"]) -> Float[Tensor, "g r n b"]:
    product: Tensor = torch.bmm(rows.flatten(1, 2), matrix).unflatten(1, rows.shape[1:3])
    return product


def _transposed_times(rows: Float[Tensor, "g r n a"], others: Float[Tensor, "g r n b"]) -> Float[Tensor, "g a b"]:
    return torch.bmm(rows.flatten(1, 2).transpose(1, 2), others.flatten(1, 2))
