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
    out: Annotated[
        Path, typer.Option("--out", help="Folder for the export, absent or empty; for gguf a file that is absent.")
    ],
    format: Annotated[str, typer.Option("--format", help="One of dense, folded, gguf.")] = "dense",
    tolerance: Annotated[
        float | None,
        typer.Option(min=0, help="Largest difference of logits that is allowed beyond rounding; 0.0001 if not given."),
    ] = None,
    type: Annotated[
        str | None,
        typer.Option(
            "--type",
            help="For gguf, the number type of matrices on no grid: f32, f16, bf16, q8_0, q4_1, q4_0, q2_0, tq2_0, "
            "tq1_0 or q1_0; the model's own number format if not given.",
        ),
    ] = None,
) -> None:
    """Write a model in another form; `dense`, which opens without kronpress, and `folded` prove that outputs stay."""
    work.export.export(model, out, format=format, tolerance=tolerance, type=type)
