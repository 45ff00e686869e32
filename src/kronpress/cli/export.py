"""The command that writes a model in a format that other programs read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kronpress.cli import work
from kronpress.cli.app import Model, command


@command()
def export(
    model: Model,
    out: Annotated[Path, typer.Option("--out", help="Folder for the export; must be absent or empty.")],
    format: Annotated[str, typer.Option("--format", help="One of dense, folded.")] = "dense",
    tolerance: Annotated[
        float, typer.Option(min=0, help="Largest difference of logits that is allowed beyond rounding.")
    ] = 1e-4,
) -> None:
    """Write a compressed model in another form, and prove that it is the same; dense opens without kronpress."""
    work.export.export(model, out, format=format, tolerance=tolerance)
