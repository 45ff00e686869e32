"""Adapters that reach the dense layers of a model alone, told when the training begins."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from kronpress.layers import FactoredEmbedding, FactoredHead, StructuredLayer


def watchful_train(base: type[PreTrainedModel]) -> Callable[..., Any]:
    """Return the `train` of a model class that warns, once, where adapters of peft reach no layer with factors."""

    def train(self: Any, mode: bool = True) -> Any:
        if mode and not vars(self).get("_adapters_were_seen"):
            seen = _look(self)
            for part in (part for part in self.modules() if isinstance(part, PreTrainedModel)):
                vars(part)["_adapters_were_seen"] = seen  # of the models inside of this one as well
        return base.train(self, mode)

    return train


def _look(model: nn.Module) -> bool:
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
