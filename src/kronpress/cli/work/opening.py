"""How commands open a model together with its tokenizer."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel

from kronpress.checkpoint import load_with_tokenizer
from kronpress.errors import KronpressError


def open_model(name: str) -> tuple[PreTrainedModel, Any]:
    """Return the model and its tokenizer.

    Raises:
        KronpressError: where there is no such model, or no tokenizer beside it.
    """
    model, tokenizer = load_with_tokenizer(name)
    if tokenizer is None:
        raise KronpressError(f"the model '{name}' has no readable tokenizer beside it; add its tokenizer files")
    return model, tokenizer
