"""How commands open a model together with its tokenizer."""

from __future__ import annotations

from typing import Any

import typer
from transformers import PreTrainedModel

from kronpress.checkpoint import load_with_tokenizer, notes_of
from kronpress.errors import KronpressError


def open_model(name: str) -> tuple[PreTrainedModel, Any]:
    """Return the model and its tokenizer.

    Raises:
        KronpressError: where there is no such model, or no tokenizer beside it.
    """
    model, tokenizer = load_with_tokenizer(name)
    if tokenizer is None:
        raise KronpressError(f"the model '{name}' has no readable tokenizer beside it; add its tokenizer files")
    tell_notes(model)
    return model, tokenizer


def tell_notes(model: PreTrainedModel) -> None:
    """Print what is to be known of a model as it was opened."""
    for text in notes_of(model):
        typer.echo(f"note: {text}", err=True)
