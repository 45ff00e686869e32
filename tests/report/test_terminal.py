"""The terminal shows the short form."""

from __future__ import annotations

import dataclasses
import io

import pytest
from rich.console import Console

from kronpress.records import Score
from kronpress.report import RunSummary, print_summary
from tests.report.examples import empty, full, task


def printed(summary: RunSummary, *, width: int = 140) -> str:
    target = io.StringIO()
    print_summary(summary, console=Console(file=target, width=width))
    return target.getvalue()


def cells(text: str, first: str) -> list[str]:
    """Return the other cells of the row of a table that begins with `first`."""
    rows = [
        [cell.strip() for cell in line.strip("│┃").split(line[0])] for line in text.splitlines() if line[:1] in "│┃"
    ]
    return next(row[1:] for row in rows if row[:1] == [first])


def test_size_quality_and_speed_are_shown() -> None:
    text = printed(full())
    for expected in ("94.7 M", "40.3", "1.34×", "windows-512", "1.26–1.35", "30 of 30 feed-forwards"):
        assert expected in text


@pytest.mark.parametrize("width", [200, 20])
@pytest.mark.parametrize("name", ["[b]", "[/b]"])
def test_what_looks_like_markup_is_shown(name: str, width: int) -> None:
    summary = dataclasses.replace(
        full(), title=name, base_model=name, notes=[name], tasks=[task("rte", {name: Score(60), "student": Score(50)})]
    )
    assert printed(summary, width=width).count(name) == 4


def test_scores_have_a_row_for_each_model_where_the_console_is_wide() -> None:
    text = printed(full(), width=200)
    scores = ["84.20 ± 0.60", "65.10 ± 1.25", "56.34 ± 0.00"]
    assert cells(text, "student") == [*scores, "68.55", "74.65", "57.0 M", "114.0 M", "97.92"]
    assert "the scores are optimistic" in text


def test_scores_have_a_column_for_each_model_where_it_is_narrow() -> None:
    text = printed(full(), width=80)
    assert cells(text, "") == ["before", "after", "change"], "of the footprint, which comes first"
    assert cells(text, "rte") == ["70.00 ± 2.00", "65.10 ± 1.25", "60.00 ± 0.50"]
    assert cells(text, "average without WNLI") == ["80.00", "74.65", "70.00"]
    assert cells(text, "teacher") == ["54.32 ± 3.00"], "narrow enough"
    assert max(map(len, text.splitlines())) <= 80


def test_empty_tables_are_left_out() -> None:
    assert printed(empty()).split() == ["Nothing", "yet", "tiny"]


def test_brackets_are_text_not_style() -> None:
    scores = [task("[b]rte", {"teacher": Score(70), "[/red]": Score(60)})]
    text = printed(dataclasses.replace(full(), title="[red]x", notes=["[/bold]"], tasks=scores))
    assert "[red]x" in text
    assert cells(text, "[/red]")[0] == "60.00"
    assert "[b]rte: accuracy" in text


def test_every_table_of_scores_has_its_own_title() -> None:
    mrpc, rte, _ = full().tasks
    parts = {"f1": Score(91.0), "accuracy": Score(89.0)}
    models = tuple(dataclasses.replace(model, metrics=parts) for model in mrpc.models)
    summary = dataclasses.replace(full(), tasks=[dataclasses.replace(mrpc, models=models), rte])
    text = printed(summary, width=200)
    titles = [line.strip() for line in text.splitlines() if line.startswith("Tasks")]
    assert titles == ["Tasks", "Tasks, each metric", "Tasks, outside of the distribution"]
