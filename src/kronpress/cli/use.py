"""Commands that use a model: generate and verify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kronpress.cli import work
from kronpress.cli.app import Model, command
from kronpress.errors import KronpressError


@command()
def generate(
    model: Model,
    prompt: Annotated[str, typer.Option(help="Text to continue.")] = "Once upon a time",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens to write at most.")] = 60,
) -> None:
    """Continue a prompt, greedily."""
    work.use.generate(model, prompt, max_new_tokens=max_new_tokens)


@command()
def verify(folder: Annotated[Path, typer.Argument(help="A checkpoint folder that kronpress wrote.")]) -> None:
    """Check that a checkpoint is the one that was saved: hashes of its files, and the outputs of its probe."""
    if not folder.is_dir():
        raise KronpressError(f"there is no folder {folder}; name one that kronpress wrote a checkpoint into")
    work.use.verify(folder)
