"""Use a model: continue a text, or compare its files with what was saved."""

from __future__ import annotations

from pathlib import Path

import torch
import typer

from kronpress import checkpoint
from kronpress.cli.work.opening import open_model
from kronpress.evaluate import generate_samples


def generate(model: str, prompt: str, *, max_new_tokens: int) -> None:
    """Print a prompt and what the model continues it with."""
    opened, tokenizer = open_model(model)
    with torch.inference_mode():
        (text,) = generate_samples(opened, tokenizer, [prompt], max_new_tokens=max_new_tokens)
    typer.echo(prompt + text)


def verify(folder: Path) -> None:
    """Check a checkpoint and say what was compared."""
    found = checkpoint.verify(folder)
    typer.echo(
        f"{folder}: {found['files']} files match their hashes; "
        f"the outputs deviate from the probe by {found['deviation']:.2g} standard deviations"
    )
