"""What training needs around quantizers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from typing_extensions import override

from kronpress.layers import QuantizedTensor, RoundedInputs, quantized_tensors
from kronpress.quantizers.mse import LeastSquares

_EPSILON = 1e-8  # Adam's


def learning(model: nn.Module) -> Iterator[tuple[str, QuantizedTensor | RoundedInputs]]:
    """Go through the tensors and roundings of a model that learn by a rule, a shared one once, with their paths."""
    for path, module in model.named_modules():
        if isinstance(module, QuantizedTensor | RoundedInputs) and module.learning:
            yield path, module


def learned_names(model: nn.Module) -> list[str]:
    """Return the names of the scales, shifts and factors that quantizers learn, as `named_parameters` has them.

    An optimizer gives them no weight decay, and often a learning rate of their own.
    """
    return [
        f"{path}.learned.{name}" if path else f"learned.{name}"
        for path, module in learning(model)
        for name, parameter in module.learned.items()
        if parameter.requires_grad
    ]


def let_learn(model: nn.Module) -> None:
    """Let the packed tensors of a model learn on, with the scales that they have; a file does not name a quantizer."""
    for tensor in quantized_tensors(model):
        if not tensor.learning:
            tensor.learn(LeastSquares())


@torch.no_grad()
def take_importance(model: nn.Module, optimizer: Any) -> int:
    """Copy the square root of Adam's second moment of latent numbers to where `laq` reads it.

    Args:
        model: with tensors that learn.
        optimizer: Adam or AdamW of torch, which may be wrapped by accelerate.

    Returns:
        How many tensors took it; those without a second moment yet keep what they have.
    """
    taken = 0
    for _, tensor in learning(model):
        if isinstance(tensor, QuantizedTensor) and "importance" in tensor.learned:
            moment: Tensor | None = optimizer.state.get(tensor.latent, {}).get("exp_avg_sq")
            if moment is not None:
                tensor.learned["importance"].copy_(tensor.grid.groups(moment).sqrt() + _EPSILON)
                taken += 1
    return taken


class TakeImportance(TrainerCallback):
    """Calls `take_importance` after every step of the optimizer; a checkpoint holds what was taken."""

    @override
    def on_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        optimizer: Any = None,
        **_: Any,
    ) -> None:
        assert model is not None
        take_importance(model, optimizer)
