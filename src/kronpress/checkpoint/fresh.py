"""Random numbers for layers that no file fills, and for a whole model that begins anew."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, initialization

from kronpress.layers import QuantizedTensor, RoundedInputs, StructuredLayer, spanning

_LOADED = "_is_hf_initialized"  # what transformers marks modules and tensors with that need no random numbers
_CONSTANT = {"bias": initialization.zeros_, "scales": initialization.ones_}


def drawn(module: nn.Module, *, deviation: float) -> bool:
    """Give a part of a structured layer random numbers, and say whether the module is one."""
    if isinstance(module, StructuredLayer):
        fill(module, deviation=deviation)
    elif isinstance(module, QuantizedTensor):
        draw(module, deviation=deviation)
    elif isinstance(module, RoundedInputs):
        open_wide(module)
    else:
        return False
    return True


def fill(layer: StructuredLayer, *, deviation: float) -> None:
    """Draw factors whose product has entries of about the standard deviation `deviation`; scales are 1, biases 0.

    Layers that only hold others, such as a fused one, leave that to them. A tensor that was loaded stays as it is.
    """
    kinds = [(name.rpartition(".")[2], parameter) for name, parameter in layer.named_parameters()]
    for name, parameter in kinds:
        if name in _CONSTANT:
            _CONSTANT[name](parameter)
    factors = [parameter for name, parameter in kinds if name not in _CONSTANT]
    if _has_factors(layer):
        rows, columns = layer.matrix
        summed = math.sqrt(math.prod(parameter.numel() for parameter in factors) / (rows * columns))
        for parameter in factors:
            initialization.normal_(parameter, std=(deviation / math.sqrt(summed)) ** (1 / len(factors)))


def draw(tensor: QuantizedTensor, *, deviation: float) -> None:
    """Draw codes at random, scaled to numbers of the standard deviation `deviation`; what was loaded stays."""
    if tensor.packed is None or _is_loaded(tensor.packed):
        return
    numbers = torch.randn(tensor.size, device=tensor.packed.device) * deviation
    tensor.take(spanning(tensor.grid.groups(numbers), tensor.grid))


def open_wide(inputs: RoundedInputs) -> None:
    """Let a stored range reach from -1 to 1; one that was loaded stays."""
    if inputs.scale is not None and not _is_loaded(inputs.scale):
        scale, shift = inputs.grid.span(torch.tensor([[[-1.0, 1.0]]], device=inputs.scale.device))
        inputs.scale.copy_(scale[..., 0])
        if inputs.shift is not None and shift is not None:
            inputs.shift.copy_(shift[..., 0])


def redraw(model: PreTrainedModel) -> None:
    """Give a model the random weights of one that is built from its configuration, factors included, in place.

    Numbers on grids are drawn where they lie in codes, not while they are learning.
    """
    for thing in (*model.modules(), *model.parameters(), *model.buffers()):
        if hasattr(thing, _LOADED):
            delattr(thing, _LOADED)
    model.initialize_weights()
    model.tie_weights()


def _is_loaded(tensor: Tensor) -> bool:
    return tensor.is_meta or getattr(tensor, _LOADED, False)


def _has_factors(layer: StructuredLayer) -> bool:
    """Say whether the layer has factors itself; an entry of their product is a sum with one number of each."""
    lists = [child for child in layer.children() if isinstance(child, nn.ParameterList)]
    own = [name for name, _ in layer.named_parameters(recurse=False) if name not in _CONSTANT]
    return bool(own or lists)
