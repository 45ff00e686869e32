"""Commands that use a model: generate and verify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from kronpress import checkpoint
from kronpress.cli.app import app
from kronpress.cli.opening import Model, open_model
from kronpress.errors import KronpressError
from kronpress.evaluate import generate_samples


@app.command()
def generate(
    model: Model,
    prompt: Annotated[str, typer.Option(help="Text to continue.")] = "Once upon a time",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens to write at most.")] = 60,
) -> None:
    """Continue a prompt, greedily."""
    opened, tokenizer = open_model(model)
    with torch.inference_mode():
        (text,) = generate_samples(opened, tokenizer, [prompt], max_new_tokens=max_new_tokens)
    typer.echo(prompt + text)


@app.command()
def verify(folder: Annotated[Path, typer.Argument(help="A checkpoint folder that kronpress wrote.")]) -> None:
    """Check that a checkpoint is the one that was saved: hashes of its files, and the outputs of its probe."""
    if not folder.is_dir():
        raise KronpressError(f"there is no folder {folder}; name one that kronpress wrote a checkpoint into")
    found = checkpoint.verify(folder)
    typer.echo(
        f"{folder}: {found['files']} files match their hashes; "
        f"the outputs deviate from the probe by {found['deviation']:.2g} standard deviations"
    )
