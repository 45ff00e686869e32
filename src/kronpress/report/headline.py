"""The few numbers that stand above everything else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kronpress.report.numbers import change, percent, quantity, ratio, significant
from kronpress.report.scores import STUDENT, TEACHER, average, scopes, share
from kronpress.report.sizes import DISK, PARAMETERS, quantities
from kronpress.report.summary import PerplexityRow, RunSummary


@dataclass(frozen=True)
class Headline:
    """One number, what it is, and what it is compared with."""

    label: str
    value: str
    detail: str


def first_and_last(rows: list[PerplexityRow]) -> tuple[PerplexityRow, PerplexityRow]:
    """Return the dense and the final row of the first (protocol, text) that was measured."""
    same = [row for row in rows if (row.protocol, row.text) == (rows[0].protocol, rows[0].text)]
    return same[0], same[-1]


def _sizes(summary: RunSummary) -> Iterator[Headline]:
    dense, student = quantities(summary.footprint_before), quantities(summary.footprint_after)
    for label, name in ((PARAMETERS, "Parameters"), (DISK, "Size on disk")):
        before, after = dense.get(label), student.get(label)
        if after is not None:
            detail = f"{change(before, after=after)} from {quantity(before)}" if before else "dense size unknown"
            yield Headline(label=name, value=quantity(after), detail=detail)


def _quality(summary: RunSummary) -> Iterator[Headline]:
    if summary.perplexity:
        dense, final = first_and_last(list(summary.perplexity))
        detail = f"{significant(dense.perplexity)} → {significant(final.perplexity)}, {final.text}"
        if dense is final:
            detail = f"{significant(final.perplexity)}, {final.text}"
        yield Headline(label="Perplexity vs. dense", value=ratio(final.ratio), detail=detail)


def _tasks(summary: RunSummary) -> Iterator[Headline]:
    _, tasks = scopes(summary.tasks)[-1]  # of the last step, where tasks are repeated
    before, after, kept = average(tasks, TEACHER), average(tasks, STUDENT), share(tasks, STUDENT)
    if before is not None and after is not None and kept is not None:
        what = f"average of {len(tasks)} tasks" if len(tasks) > 1 else tasks[0].task
        detail = f"{percent(before)} → {percent(after)}, {what}"
        yield Headline(label="Task score vs. teacher", value=f"{percent(kept)} %", detail=detail)


def _speeds(summary: RunSummary) -> Iterator[Headline]:
    for kind in ("prefill", "decode"):
        row = next((row for row in summary.speed if row.phase.lower().startswith(kind)), None)
        if row:
            detail = f"spread {significant(row.ratio_min)}–{ratio(row.ratio_max)}"
            yield Headline(label=f"{kind.capitalize()} speed vs. dense", value=ratio(row.ratio), detail=detail)


def headlines(summary: RunSummary) -> list[Headline]:
    """Return what is known of size, quality and speed, in this order."""
    return [*_sizes(summary), *_quality(summary), *_tasks(summary), *_speeds(summary)]
