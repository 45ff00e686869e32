"""Another dropout than a model's own for the time of a training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

_ATTRIBUTES = ("p", "attention_dropout")  # of `nn.Dropout`, and of attention that calls the function


@contextmanager
def dropping(model: nn.Module, probability: float | None) -> Iterator[None]:
    """Let a model drop activations with this probability inside of the block; None leaves it as it is."""
    places = [(module, name, getattr(module, name, None)) for module in model.modules() for name in _ATTRIBUTES]
    own = [place for place in places if type(place[2]) in (int, float) and probability is not None]
    try:
        for module, name, _ in own:
            setattr(module, name, probability)
        yield
    finally:
        for module, name, value in own:
            setattr(module, name, value)
