"""The command that writes a model in a format that other programs read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kronpress.checkpoint import files, load_with_tokenizer
from kronpress.cli.app import app
from kronpress.evaluate import footprint
from kronpress.export import EXPORTERS, TOLERANCE


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="A folder, a hub id, a GGUF file or bundled:smollm2-135m.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the export; must be absent or empty.")],
    format: Annotated[str, typer.Option("--format", help=f"One of {', '.join(EXPORTERS)}.")] = "dense",
    tolerance: Annotated[
        float, typer.Option(min=0, help="Largest difference of logits that is allowed beyond rounding.")
    ] = TOLERANCE,
) -> None:
    """Write a compressed model as a plain checkpoint that opens without kronpress, and prove that it is the same."""
    exporter = EXPORTERS[format]
    files.require_empty(out)
    opened, tokenizer = load_with_tokenizer(model)
    done = exporter(opened, out, tokenizer=tokenizer, tolerance=tolerance)
    if done.layers:
        typer.echo(
            f"{done.layers} layers multiplied out: {footprint(opened).parameters:,} parameters became "
            f"{done.parameters:,}, the size of the dense architecture"
        )
    else:
        typer.echo(f"{model} has no factors: its {done.parameters:,} parameters are exported as they are")
    typer.echo(f"parity: {done.parity.sentence(tolerance=tolerance)}\nmodel:  {out}")
