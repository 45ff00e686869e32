"""Write a model in a format that other programs read."""

from __future__ import annotations

from pathlib import Path

import typer

from kronpress.checkpoint import files, load_with_tokenizer
from kronpress.cli.work.opening import tell_notes
from kronpress.evaluate import footprint
from kronpress.export import EXPORTERS


def export(model: str, out: Path, *, format: str, tolerance: float) -> None:
    """Write a compressed model in another form, and say how equal it is."""
    exporter = EXPORTERS[format](tolerance)
    files.require_empty(out)
    opened, tokenizer = load_with_tokenizer(model)
    tell_notes(opened)
    done = exporter.write(opened, out, tokenizer=tokenizer)
    before = footprint(opened).parameters
    typer.echo(f"{done.done}: {before:,} parameters became {done.parameters:,}")
    typer.echo(f"parity: {done.parity.sentence(tolerance=tolerance)}\nmodel:  {out}")
