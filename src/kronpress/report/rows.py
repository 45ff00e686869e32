"""The rows that every form of report shows alike."""

from __future__ import annotations

from kronpress.records import LmEvalScore
from kronpress.report.numbers import change, quantity, ratio, significant
from kronpress.report.sizes import DISK, PARAMETERS, Quantity, quantities
from kronpress.report.summary import RunSummary


def footprint_rows(summary: RunSummary) -> list[tuple[str, str, str, str]]:
    """Return (label, before, after, change) for each label known on either side.

    Where numbers lie on grids, that is also the bits of the file for each parameter.
    """
    before, after = quantities(summary.footprint_before), quantities(summary.footprint_after)
    if summary.quantized:
        before, after = _with_bits(before), _with_bits(after)
    sides = [(label, before.get(label), after.get(label)) for label in {**before, **after}]
    return [(label, quantity(old), quantity(new), change(old, after=new)) for label, old, new in sides]


def _with_bits(sizes: dict[str, Quantity]) -> dict[str, Quantity]:
    if DISK not in sizes or PARAMETERS not in sizes:
        return sizes
    bits = 8 * sizes[DISK].value / sizes[PARAMETERS].value
    return {**sizes, "bits on disk, each parameter": Quantity(bits, "bits")}


def perplexity_rows(summary: RunSummary) -> list[tuple[str, str, str, str, str]]:
    """Return (stage, text, protocol, perplexity, ratio to dense) in the order of the run."""
    return [
        (row.stage, row.text, row.protocol, significant(row.perplexity), ratio(row.ratio)) for row in summary.perplexity
    ]


TEXT_SET_HEAD = ("stage", "text", "digest", "protocol", "dense", "student", "vs. dense")


def text_set_rows(summary: RunSummary) -> list[tuple[str, ...]]:
    """Return the perplexities on sets of texts under the names of `TEXT_SET_HEAD`, the geometric mean below each."""
    rows: list[tuple[str, ...]] = []
    for row in summary.texts:
        for text in row.scores.texts:
            dense, student = text.perplexity.dense, text.perplexity.student
            values = (significant(dense.perplexity), significant(student.perplexity), ratio(text.perplexity.ratio))
            rows.append((row.stage, text.name, text.digest, student.protocol, *values))
        rows.append((row.stage, "general", "", "geometric mean", "", "", ratio(row.scores.general)))
    return rows


def lm_eval_rows(summary: RunSummary) -> list[tuple[str, str, str, str, str]]:
    """Return (stage, task, metric, dense, student) in the order of the run, values with their standard errors."""
    return [
        (row.stage, score.task, score.measured, _value(score), _value(row.scores.student))
        for row, score in ((row, row.scores.dense) for row in summary.lm_eval)
    ]


def _value(score: LmEvalScore) -> str:
    return significant(score.value) + ("" if score.stderr is None else f" ± {significant(score.stderr)}")


def speed_rows(summary: RunSummary) -> list[tuple[str, str, str, str, str]]:
    """Return (phase with unit, dense, student, ratio, spread of the ratio)."""
    return [
        (
            f"{row.phase} (tokens/s)",
            significant(row.dense),
            significant(row.student),
            ratio(row.ratio),
            f"{significant(row.ratio_min)}–{significant(row.ratio_max)}",
        )
        for row in summary.speed
    ]
