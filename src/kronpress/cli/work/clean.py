"""Clean text and say what went."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from kronpress import disk
from kronpress.data import read_utf8
from kronpress.data.cleaning import Cleaning, is_cleaned, preview
from kronpress.data.cleaning import clean as clean_text
from kronpress.errors import KronpressError, shown
from kronpress.notation import read_yaml
from kronpress.records import CleaningReport, CleaningRow, encode
from kronpress.validation import parse


def settings_of(path: Path | None, chosen: Mapping[str, Any]) -> Cleaning:
    """Read the settings in a file, if there is one, with what was chosen in their place."""
    content = {} if path is None else read_yaml(read_utf8(path), place=str(path))
    if not isinstance(content, dict):
        raise KronpressError(
            f"{path} holds {shown(content)}; give a mapping of settings: {', '.join(Cleaning.model_fields)}"
        )
    return parse(Cleaning, {**content, **chosen}, place="clean" if path is None else str(path))


def clean(source: str, settings: Cleaning, out: Path | None, *, resume: bool, json_file: Path | None) -> None:
    """Clean text into a folder, or without one only say what would go."""
    if json_file is not None:
        disk.require_possible(json_file.parent)
    before = out is not None and is_cleaned(out)
    report = preview(source, settings) if out is None else clean_text(source, settings, out, resume=resume)
    print_report(report)
    if json_file is not None:
        disk.write_json(json_file, encode(report))
    if out is None:
        typer.echo("nothing was written, as --dry-run asks")
    else:
        typer.echo(f"{'it was finished already; nothing was done' if before else 'done'}\ntext:   {out}")


def print_report(report: CleaningReport, *, console: Console | None = None) -> None:
    """Print what went and why, examples, the settings and the speed."""
    target = console or Console()
    target.print(_amounts(report))
    for line in (*_examples(report), *_settings(report.settings)):
        target.print(escape(line), highlight=False, soft_wrap=True)
    speed = f"{report.seconds:.1f} s, {report.megabytes_per_second:.1f} MB/s"
    target.print(f"{speed}, at most {report.peak_rss_bytes / 1e6:.0f} MB of memory", highlight=False)


def _amounts(report: CleaningReport) -> Table:
    numbers = [Column(name, justify="right") for name in ("documents", "share", "MB", "share")]
    table = Table("", *numbers, title=escape(report.source), title_justify="left", title_style="bold")
    for row in (report.read, *report.went, report.stayed):
        table.add_row(escape(row.reason), *_cells(row, report.read), end_section=row is report.read)
    return table


def _cells(row: CleaningRow, whole: CleaningRow) -> Iterator[str]:
    for amount, total, text in (
        (row.documents, whole.documents, f"{row.documents:,}"),
        (row.bytes, whole.bytes, f"{row.bytes / 1e6:,.3f}"),
    ):
        yield text
        yield f"{amount / total:.2%}" if total else "–"


def _examples(report: CleaningReport) -> Iterator[str]:
    for went in report.examples:
        stays = f" ({went.stays} stays)" if went.stays else ""
        yield f"{went.reason}: {went.place}{stays}\n    {' '.join(went.text.split())}"


def _settings(settings: Mapping[str, Any]) -> Iterator[str]:
    for name, value in settings.items():
        for method in value if isinstance(value, list) else [value]:
            if isinstance(method, dict):
                fields = ", ".join(f"{key} {json.dumps(field)}" for key, field in method.items() if key != "name")
                yield f"{name}: {method['name']}{f' ({fields})' if fields else ''}"
            else:
                yield f"{name}: {'any' if method is None else method}"
