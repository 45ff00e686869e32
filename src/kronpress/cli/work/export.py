"""Write a model in a format that other programs read."""

from __future__ import annotations

from pathlib import Path

import typer

from kronpress.checkpoint import load_with_tokenizer
from kronpress.cli.work.opening import tell_notes
from kronpress.errors import KronpressError
from kronpress.evaluate import footprint
from kronpress.export import EXPORTERS, Exporter, GgufExporter


def export(model: str, out: Path, *, format: str, tolerance: float | None, type: str | None) -> None:
    """Write a compressed model in another form, and say how equal it is."""
    exporter = _exporter(format, tolerance, type)
    exporter.require(out)
    opened, tokenizer = load_with_tokenizer(model)
    tell_notes(opened)
    done = exporter.write(opened, out, tokenizer=tokenizer)
    before = footprint(opened).parameters
    typer.echo(f"{done.done}: {before:,} parameters became {done.parameters:,}")
    typer.echo(f"{done.proof(tolerance=exporter.tolerance)}\nmodel:  {out}")


def _exporter(format: str, tolerance: float | None, type: str | None) -> Exporter:
    kind = EXPORTERS[format]
    if issubclass(kind, GgufExporter):
        if tolerance is not None:
            raise KronpressError(
                f"--tolerance {tolerance:g} is for --format dense and folded, which compare outputs; leave it out"
            )
        return kind(type=type)
    if type is not None:
        raise KronpressError(f"--type {type} is for --format gguf; leave it out, or set that format")
    return kind() if tolerance is None else kind(tolerance)
