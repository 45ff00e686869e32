"""Read dense layers whatever their orientation, and build them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


def weight_of(layer: nn.Module) -> Float[Tensor, "out in"]:
    """Return the weight as out × in; GPT-2's `Conv1D` stores in × out and is transposed here, once."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight.detach().T if is_transposed(layer) else weight.detach()


def linear(weight: Float[Tensor, "out in"], *, bias: Float[Tensor, " out"] | None = None) -> nn.Linear:
    """Return a linear layer that holds copies of the given tensors."""
    out_features, in_features = weight.shape
    layer = nn.Linear(in_features, out_features, bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.detach().clone().contiguous())
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone())
    return layer


def narrowed(layer: nn.Module, weight: Float[Tensor, "out in"], *, bias: Tensor | None) -> nn.Module:
    """Return a dense layer of the class of `layer` (so that its checkpoint stays plain) with this weight."""
    if not is_transposed(layer):
        return linear(weight, bias=bias)
    narrow = type(layer)(weight.shape[0], weight.shape[1])
    narrow.weight = nn.Parameter(weight.detach().T.clone().contiguous())
    narrow.bias = nn.Parameter(torch.zeros(len(weight), dtype=weight.dtype) if bias is None else bias.detach().clone())
    return narrow


def is_transposed(layer: nn.Module) -> bool:
    """Say whether the layer is GPT-2's `Conv1D`."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(layer, Conv1D)
