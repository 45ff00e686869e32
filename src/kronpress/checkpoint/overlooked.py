"""What a training passes by: layers that no adapter reaches, and codes. It is told when the training begins."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from kronpress.layers import FactoredEmbedding, FactoredHead, StructuredLayer, is_learning, quantized_tensors


def watchful_train(base: type[PreTrainedModel]) -> Callable[..., Any]:
    """Return the `train` of a model class that warns, once, where adapters of peft or gradients reach no layer."""

    def train(self: Any, mode: bool = True) -> Any:
        if mode and not vars(self).get("_was_looked_at"):
            seen = _look_for_adapters(self) or _look_for_codes(self)
            for part in (part for part in self.modules() if isinstance(part, PreTrainedModel)):
                vars(part)["_was_looked_at"] = seen  # of the models inside of this one as well
        return base.train(self, mode)

    return train


@contextmanager
def unwatched(model: nn.Module) -> Iterator[None]:
    """Let a training that tells by itself what it passes by begin without the warnings, inside of the context."""
    parts = [vars(part) for part in model.modules() if isinstance(part, PreTrainedModel)]
    before = [part.get("_was_looked_at", False) for part in parts]
    try:
        for part in parts:
            part["_was_looked_at"] = True
        yield
    finally:
        for part, looked_at in zip(parts, before, strict=True):
            part["_was_looked_at"] = looked_at


def _look_for_codes(model: nn.Module) -> bool:
    """Return whether numbers are codes that cannot learn, having warned of them."""
    codes = list(quantized_tensors(model))
    if not codes or is_learning(model):
        return False
    warnings.warn(
        f"{len(codes)} tensors are codes, which do not learn: only norms, biases and the like are trained; call "
        "kronpress.quantizers.let_learn(model) first",
        stacklevel=3,
    )
    return True


def _look_for_adapters(model: nn.Module) -> bool:
    """Return whether there are adapters, having warned where they reach no layer with factors."""
    tuners: Any = sys.modules.get("peft.tuners.tuners_utils")
    if tuners is None:
        return False
    adapted = [path for path, module in model.named_modules() if isinstance(module, tuners.BaseTunerLayer)]
    inside = tuple(f"{path}." for path in adapted)
    factored = [
        path
        for path, module in model.named_modules()
        if isinstance(module, StructuredLayer) and not isinstance(module, FactoredEmbedding | FactoredHead)
    ]
    if adapted and factored and not any(path.startswith(inside) for path in factored):
        warnings.warn(
            f"the adapters reach none of the {len(factored)} layers with factors, the first being '{factored[0]}': "
            "target_modules='all-linear' does not see them; make the config with kronpress.adapters.lora_config(model)",
            stacklevel=3,
        )
    return bool(adapted)
