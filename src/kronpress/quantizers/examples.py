"""What layers are given for some text, from which the ranges of rounded inputs begin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kronpress.precision import mixed_precision


@torch.no_grad()
def input_examples(model: PreTrainedModel, batch: Mapping[str, Tensor], paths: Sequence[str]) -> dict[str, Tensor]:
    """Return the inputs of the layers at `paths` as the model reads a batch, whose training mode stays as it is."""
    seen: dict[str, Tensor] = {}
    training = model.training
    model.eval()
    with ExitStack() as watching:
        for path in paths:
            handle = model.get_submodule(path).register_forward_pre_hook(_noting(seen, path), prepend=True)
            watching.callback(handle.remove)
        with mixed_precision(model.device):
            model(**{name: tensor.to(model.device) for name, tensor in batch.items()})
    model.train(training)
    return seen


def _noting(seen: dict[str, Tensor], path: str) -> Any:
    def note(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        seen[path] = args[0].detach().float()

    return note
