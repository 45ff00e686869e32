"""The command that cleans text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from kronpress.cli import work
from kronpress.cli.app import command
from kronpress.errors import KronpressError


@command()
def clean(
    source: Annotated[
        str,
        typer.Argument(help="A file, a folder, a pattern, several with commas, or hub:OWNER/NAME/CONFIGURATION#SPLIT."),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the clean text; must be absent or empty.")
    ] = None,
    unit: Annotated[
        Literal["paragraph", "line"] | None,
        typer.Option(help="What a document is in plain text; paragraph if not given. Of records, each is one."),
    ] = None,
    duplicates: Annotated[
        str | None, typer.Option(help="One of minhash, exact, short_study, none; minhash if not given.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="For minhash: Jaccard similarity from which on a document goes; 0.8.")
    ] = None,
    html: Annotated[str | None, typer.Option(help="One of strict, short_study, none; strict if not given.")] = None,
    filters: Annotated[
        str | None, typer.Option(help="Any of words, repetition, symbols, with commas, or none; all if not given.")
    ] = None,
    language: Annotated[
        str | None, typer.Option(help="The only language that stays, such as en; needs lingua-language-detector.")
    ] = None,
    settings: Annotated[
        Path | None, typer.Option(help="YAML file with these and all other settings; the options above come first.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only report what would go.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted cleaning in --out.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the report to this file.")] = None,
) -> None:
    """Drop HTML, bad text and duplicates from text of any size; files and report.json go into --out."""
    if out is None and not dry_run:
        raise KronpressError("the clean text needs a folder; name one with --out, or ask for a --dry-run")
    if dry_run and resume:
        raise KronpressError("--dry-run writes nothing that --resume could go on with; leave one of them out")
    given: dict[str, Any] = {"unit": unit, "html": html, "language": language, "filters": _filters(filters)}
    given["duplicates"] = duplicates if threshold is None else {"name": duplicates or "minhash", "threshold": threshold}
    chosen = {name: value for name, value in given.items() if value is not None}
    parsed = work.clean.settings_of(settings, chosen)
    work.clean.clean(source, parsed, None if dry_run else out, resume=resume, json_file=json_file)


def _filters(names: str | None) -> list[str] | None:
    if names is None:
        return None
    return [] if names == "none" else [name.strip() for name in names.split(",")]
