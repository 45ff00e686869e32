"""Random numbers for the structured layers that no file fills."""

from __future__ import annotations

import math

from torch import nn
from transformers import initialization

from kronpress.layers import StructuredLayer

_CONSTANT = {"bias": initialization.zeros_, "scales": initialization.ones_}


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


def _has_factors(layer: StructuredLayer) -> bool:
    """Say whether the layer has factors itself; an entry of their product is a sum with one number of each."""
    lists = [child for child in layer.children() if isinstance(child, nn.ParameterList)]
    own = [name for name, _ in layer.named_parameters(recurse=False) if name not in _CONSTANT]
    return bool(own or lists)
