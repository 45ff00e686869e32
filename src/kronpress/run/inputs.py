"""What a run works on: the model that it compresses, and its texts."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel

from kronpress.checkpoint import load_with_tokenizer
from kronpress.data import Corpus, read_text, split_held_out
from kronpress.errors import KronpressError
from kronpress.layers import quantized_tensors
from kronpress.run.recipe import TextSource


def open_texts(source: TextSource) -> tuple[Corpus, Corpus]:
    """Return the training text and the held-out text.

    Raises:
        KronpressError: one of them cannot be read, or the two are the same.
    """
    train = read_text(source.train)
    if source.held_out is None:
        return split_held_out(train)
    held_out = read_text(source.held_out)
    if held_out.fingerprint == train.fingerprint:
        raise KronpressError(
            f"the held-out text '{held_out.name}' is the training text '{train.name}', which would flatter the result; "
            "name another, or none, and the last tenth is held out"
        )
    return train, held_out


def open_model(name: str) -> tuple[PreTrainedModel, Any]:
    """Return the model of a recipe, as it is stored, and its tokenizer.

    Raises:
        KronpressError: there is no such model, or no tokenizer beside it.
    """
    model, tokenizer = load_with_tokenizer(name)
    if tokenizer is None:
        raise KronpressError(f"the model '{name}' has no readable tokenizer beside it; add its tokenizer files")
    return model, tokenizer


def computing_device() -> torch.device:
    """Return where models compute: the GPU of this process, if there is one."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def ready(model: PreTrainedModel, *, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Move a model to where it computes, with parameters of `dtype`."""
    module: torch.nn.Module = model
    module.to(computing_device())
    for parameter in module.parameters():  # buffers, such as rotary frequencies, stay precise
        parameter.data = parameter.data.to(dtype)
    for tensor in quantized_tensors(model):
        tensor.give(dtype)
    return model
