"""The command that trims a vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kronpress.cli import work
from kronpress.cli.app import Model, command


@command()
def trim(
    model: Model,
    out: Annotated[Path, typer.Option("--out", help="Folder for the trimmed model; must be absent or empty.")],
    data: Annotated[
        str, typer.Option(help="Text whose tokens stay: a file, a folder, a pattern or several with commas.")
    ],
    keep: Annotated[
        int | None, typer.Option(min=1, help="How many tokens stay, the most frequent; all of the text if not given.")
    ] = None,
    held_out: Annotated[
        str | None,
        typer.Option(help="Text on which tokens are counted before and after; by default the last tenth of --data."),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write what was done to this file.")] = None,
) -> None:
    """Take tokens that a text never uses out of tokenizer and model; the result opens without kronpress."""
    work.trim.trim(model, out, data=data, held_out=held_out, keep=keep, json_file=json_file)
