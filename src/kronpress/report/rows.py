"""The rows that every form of report shows alike."""

from __future__ import annotations

from kronpress.report.numbers import change, quantity, ratio, significant
from kronpress.report.summary import RunSummary


def footprint_rows(summary: RunSummary) -> list[tuple[str, str, str, str]]:
    """Return (label, before, after, change) for each label known on either side."""
    before, after = summary.footprint_before, summary.footprint_after
    sides = [(label, before.get(label), after.get(label)) for label in {**before, **after}]
    return [(label, quantity(old), quantity(new), change(old, after=new)) for label, old, new in sides]


def perplexity_rows(summary: RunSummary) -> list[tuple[str, str, str, str, str]]:
    """Return (stage, text, protocol, perplexity, ratio to dense) in the order of the run."""
    return [
        (row.stage, row.text, row.protocol, significant(row.perplexity), ratio(row.ratio)) for row in summary.perplexity
    ]


def speed_rows(summary: RunSummary) -> list[tuple[str, str, str, str, str]]:
    """Return (name with unit, dense, student, ratio, spread of the ratio)."""
    return [
        (
            f"{row.name} ({row.unit})",
            significant(row.dense),
            significant(row.student),
            ratio(row.ratio),
            f"{significant(row.low)}–{significant(row.high)}",
        )
        for row in summary.speed
    ]
