"""The terminal shows the short form."""

from __future__ import annotations

import dataclasses
import io

from rich.console import Console

from kronpress.report import RunSummary, print_summary
from tests.report.examples import empty, full


def printed(summary: RunSummary) -> str:
    target = io.StringIO()
    print_summary(summary, console=Console(file=target, width=140))
    return target.getvalue()


def test_size_quality_and_speed_are_shown() -> None:
    text = printed(full())
    for expected in ("94.7 M", "40.3", "1.34×", "windows-512", "1.26–1.35", "30 of 30 feed-forwards"):
        assert expected in text


def test_empty_tables_are_left_out() -> None:
    assert printed(empty()).split() == ["Nothing", "yet", "tiny"]


def test_brackets_are_text_not_style() -> None:
    assert "[red]x" in printed(dataclasses.replace(full(), title="[red]x", notes=["[/bold]"]))
