"""The short form of a report, for the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kronpress.report.grids import ROLE_HEAD, role_rows, stage_lines
from kronpress.report.rows import (
    TEXT_SET_HEAD,
    footprint_rows,
    lm_eval_rows,
    perplexity_rows,
    speed_rows,
    text_set_rows,
)
from kronpress.report.scores import Grid, score_tables
from kronpress.report.summary import RunSummary


def _table(title: str, *, head: Sequence[str], texts: int, rows: Sequence[Sequence[str]]) -> Table:
    """Return a table whose first `texts` columns are words and whose other columns are numbers."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for index, name in enumerate(head):
        table.add_column(escape(name), justify="left" if index < texts else "right")
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def _scores(grid: Grid, *, console: Console) -> Table:
    """Return a table of scores, models downwards if it is not too wide for the console so, else across."""
    upright = _table(grid.title, head=grid.head, texts=1, rows=grid.rows)
    wide = console.measure(upright, options=console.options.update(width=sys.maxsize)).maximum > console.width
    table = _table(grid.title, head=grid.turned().head, texts=1, rows=grid.turned().rows) if wide else upright
    table.caption, table.caption_justify = escape(grid.caption), "left"
    return table


def _tables(summary: RunSummary, console: Console) -> Iterator[Table]:
    rows = footprint_rows(summary)
    yield _table("Footprint", head=("", "before", "after", "change"), texts=1, rows=rows)
    for step in summary.quantized:
        yield _table(f"Numbers on grids, step {step.number}", head=ROLE_HEAD, texts=1, rows=role_rows(step.record))
    head = ("stage", "text", "protocol", "perplexity", "vs. dense")
    yield _table("Perplexity", head=head, texts=3, rows=perplexity_rows(summary))
    yield _table("Kinds of text", head=TEXT_SET_HEAD, texts=4, rows=text_set_rows(summary))
    head = ("stage", "task", "metric", "dense", "student")
    yield _table("Tasks of lm-eval", head=head, texts=3, rows=lm_eval_rows(summary))
    for grid in score_tables(summary.tasks):
        yield _scores(grid, console=console)
    yield _table("Speed", head=("", "dense", "student", "ratio", "spread"), texts=1, rows=speed_rows(summary))


def print_summary(summary: RunSummary, *, console: Console | None = None) -> None:
    """Print sizes, quality and speed as tables, a line for each stage of fewer bits, and the notes.

    Parts without data are left out.
    """
    target = console or Console()
    target.print(f"[bold]{escape(summary.title)}[/bold]  {escape(summary.base_model)}")
    for table in _tables(summary, target):
        if table.row_count:
            target.print(table)
    for note in (*stage_lines(summary), *summary.notes):
        target.print(f"• {escape(note)}")
