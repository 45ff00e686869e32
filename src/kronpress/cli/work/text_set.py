"""Print what was measured on a set of texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from kronpress.records import ModelEvaluation, SetPerplexity, TextSetComparison


def print_texts(results: Mapping[str, ModelEvaluation], compared: TextSetComparison | None) -> None:
    """Print a row for each text with the perplexity of each model; where two were compared, ratios and `general`."""
    scores = {name: result.texts for name, result in results.items() if result.texts is not None}
    if not scores:
        return
    sides = [score.texts for score in scores.values()]
    words = [Column(heading, overflow="fold") for heading in (next(iter(scores.values())).name, "digest", "protocol")]
    models = [Column(name, justify="right", overflow="fold") for name in map(escape, scores)]
    table = Table(*words, *models)
    rows = list(_rows(sides))
    if compared is not None:
        table.add_column("ratio", justify="right", no_wrap=True)
        rows = [(*row, f"{text.perplexity.ratio:.3f}×") for row, text in zip(rows, compared.texts, strict=True)]
        rows.append(("general", "", "geometric mean", *("" for _ in sides), f"{compared.general:.3f}×"))
    for row in rows:
        table.add_row(*map(escape, row))
    Console().print(table)


def _rows(sides: Sequence[Sequence[SetPerplexity]]) -> Iterator[tuple[str, ...]]:
    for scores in zip(*sides, strict=True):
        text = scores[0]
        yield (
            text.name,
            text.digest,
            text.perplexity.protocol,
            *(f"{score.perplexity.perplexity:.3f}" for score in scores),
        )
