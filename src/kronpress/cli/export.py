"""The command that writes a model in a format that other programs read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kronpress.checkpoint import files, load_with_tokenizer
from kronpress.cli.app import app
from kronpress.cli.opening import tell_notes
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
    """Write a compressed model in another form, and prove that it is the same; dense opens without kronpress."""
    exporter = EXPORTERS[format]
    files.require_empty(out)
    opened, tokenizer = load_with_tokenizer(model)
    tell_notes(opened)
    done = exporter(opened, out, tokenizer=tokenizer, tolerance=tolerance)
    before = footprint(opened).parameters
    typer.echo(f"{done.done}: {before:,} parameters became {done.parameters:,}")
    typer.echo(f"parity: {done.parity.sentence(tolerance=tolerance)}\nmodel:  {out}")
