"""What layers are given for some text, from which the ranges of rounded inputs begin."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kronpress.precision import mixed_precision

_TOKENS = 1024  # of a layer whose inputs are kept: those of all layers are in RAM at once


@torch.no_grad()
def input_examples(
    model: PreTrainedModel, batch: Mapping[str, Tensor], paths: Sequence[str], *, whole: Container[str] = ()
) -> dict[str, Tensor]:
    """Return examples of the inputs of layers as the model reads a batch, whose training mode stays as it is.

    Args:
        model: with the layers.
        batch: what the model reads.
        paths: of the layers.
        whole: those whose inputs are wanted for some tokens, at most 1,024 in equal steps; of others the smallest and
            the largest number are returned.
    """
    seen: dict[str, Tensor] = {}
    training = model.training
    model.eval()
    with ExitStack() as watching:
        for path in paths:
            handle = model.get_submodule(path).register_forward_pre_hook(
                _noting(seen, path, whole=path in whole), prepend=True
            )
            watching.callback(handle.remove)
        with mixed_precision(model.device):
            model(**{name: tensor.to(model.device) for name, tensor in batch.items()})
    model.train(training)
    return seen


def _noting(seen: dict[str, Tensor], path: str, *, whole: bool) -> Any:
    def note(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        tokens = args[0].detach().flatten(0, -2)
        some = tokens[:: math.ceil(len(tokens) / _TOKENS)] if whole else torch.stack(tokens.aminmax())
        seen[path] = some.float()

    return note
