"""What every measurement asks of a model: that it predicts the next token, and that it runs in evaluation mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

from kronpress.errors import KronpressError
from kronpress.families import is_causal


@contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Run the block in evaluation mode without gradients; each module's mode is restored afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, training in modes:
            module.training = training


def require_causal(model: PreTrainedModel, *, what: str) -> None:
    """Stop where `what` (perplexity, samples) is asked of a model that does not predict the next token.

    Raises:
        KronpressError: for encoders, encoder-decoders and decoders without their head.
    """
    if not is_causal(model):
        raise KronpressError(
            f"{what} needs a causal language model with its head, and {type(model).__name__} is none; "
            "load a decoder with AutoModelForCausalLM, or measure an encoder by a task and its footprint"
        )
