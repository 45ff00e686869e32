"""The output head of a language model: what enters it, and part of what leaves it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from kronpress.activations.statistics import InputMoments
from kronpress.activations.stream import batch_size
from kronpress.families import has_module, layout
from kronpress.precision import mixed_precision


def head_of(model: PreTrainedModel) -> nn.Module | None:
    """Return the output embedding, or None in a model without a language-model head."""
    path = layout(model).family.head
    return model.get_submodule(path) if has_module(model, path) else None


@contextmanager
def withheld(head: nn.Module) -> Iterator[None]:
    """Let the model give what its head would get, in place of logits."""
    head.forward = lambda hidden: hidden
    try:
        yield
    finally:
        del head.forward


def narrowed(head: nn.Module, outputs: int) -> Callable[[Tensor], Tensor]:
    """Return what gives the first logits of a head, at most `outputs`; a plain layer computes no others."""
    if not isinstance(head, nn.Linear):
        return lambda hidden: head(hidden)[..., :outputs]
    if head.out_features <= outputs:
        return head
    bias: Tensor | None = head.bias
    first, biases = head.weight[:outputs], None if bias is None else bias[:outputs]
    return lambda hidden: F.linear(hidden, first, biases)


@torch.no_grad()
def head_moment(model: PreTrainedModel, windows: Int[Tensor, "windows tokens"]) -> Float[Tensor, "dim dim"] | None:
    """Return E[h hᵀ] of what the output head is given for a text, or None in a model without one."""
    head = head_of(model)
    if head is None:
        return None
    statistic = InputMoments(layout(model).family.head, layer=head)
    with statistic.watching(model), withheld(head), mixed_precision(model.device):
        for batch in windows.to(model.device).split(batch_size(*windows.shape)):
            model(input_ids=batch)
    return statistic.second_moment()
