"""Measure a model, alone or side by side with another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeAlias

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table
from transformers import PreTrainedModel

from kronpress.checkpoint import files
from kronpress.cli.work.opening import open_model
from kronpress.cli.work.text_set import print_texts
from kronpress.data import read_text, split_held_out
from kronpress.evaluate import PROTOCOLS, TextSet, compare_speed, footprint
from kronpress.evaluate.lm_eval import LmEvalTasks, parse_tasks
from kronpress.evaluate.measure import Evaluation, LambadaFile
from kronpress.evaluate.model_checks import require_causal
from kronpress.evaluate.perplexity_text import PerplexityText
from kronpress.memory import keep_freed_memory
from kronpress.precision import Precision, choose, computing_in, number_format
from kronpress.records import ModelEvaluation, SpeedComparison, TextSetComparison

Row: TypeAlias = tuple[str, str, float, str]
"""What was measured, on what, the value, and its error as it is printed."""


def evaluate(
    model: str, against: str | None, evaluation: Evaluation, *, precision: Precision, json_file: Path | None
) -> None:
    """Measure a model, and the one to compare it with first; both are opened before."""
    keep_freed_memory()
    opened = {name: open_model(name) for name in filter(None, (against, model))}
    models = [opened_model for opened_model, _ in opened.values()]
    for opened_model in models:
        require_causal(opened_model, what="kronpress evaluate")
    chosen = choose(precision, models[-1].device)
    typer.echo(f"matrix products in {chosen}")
    with computing_in(chosen):
        results = {name: _measured(evaluation.fitting(*models), *pair, name) for name, pair in opened.items()}
    _print_results(results)
    texts = None if against is None else _compared_texts(results[against], results[model])
    print_texts(results, texts)
    speed = compare_speed(opened[against][0], opened[model][0]) if evaluation.speed and against is not None else None
    if speed is not None:
        _print_speed(speed)
    if json_file is not None:
        files.write_json(json_file, _json(results, texts, speed))


def asked(
    *,
    text: PerplexityText | None,
    texts: TextSet | None,
    lambada: LambadaFile | None,
    lm_eval: LmEvalTasks | None,
    speed: bool,
) -> Evaluation:
    """Return what the options ask for."""
    return Evaluation(text=text, texts=texts, lambada=lambada, lm_eval=lm_eval, speed=speed)


def text(protocols: Sequence[str], data: str | None, max_windows: int | None) -> PerplexityText:
    """Read the text to measure perplexity on, by protocols or the one that fits all models where none is named."""
    named = tuple(PROTOCOLS[name] for name in protocols) or None
    corpus = read_text(data) if data else split_held_out(read_text("bundled:python-reference"))[1]
    return PerplexityText(corpus, named, max_windows)


def texts(path: Path) -> TextSet:
    """Read a set of texts."""
    return TextSet.read(path)


def lambada(path: str, limit: int | None) -> LambadaFile:
    """Read the first passages of a file of LAMBADA."""
    return LambadaFile.read(path, limit=limit)


def lm_eval(tasks: str, include: str | None, limit: int | None) -> LmEvalTasks:
    """Find tasks of lm-evaluation-harness, named with commas."""
    chosen = LmEvalTasks(parse_tasks(tasks), include=include, limit=limit)
    chosen.check()
    return chosen


def _measured(evaluation: Evaluation, model: PreTrainedModel, tokenizer: Any, name: str) -> ModelEvaluation:
    """Measure a model, which computes in the number format from now on, and its size before."""
    size = footprint(model, folder=Path(name) if Path(name).is_dir() else None)
    if number_format(model.device).name == "fp32":
        model.float()
    return replace(evaluation.measure(model, tokenizer), footprint=size)


def _compared_texts(dense: ModelEvaluation, student: ModelEvaluation) -> TextSetComparison | None:
    return TextSetComparison.of(dense.texts, student.texts) if dense.texts and student.texts else None


def _json(
    results: Mapping[str, ModelEvaluation], texts: TextSetComparison | None, speed: SpeedComparison | None
) -> dict[str, Any]:
    """Return what was measured of each model by its name, without what was not asked for, and the comparisons."""
    values = {
        name: {key: value for key, value in asdict(result).items() if value not in (None, ())}
        for name, result in results.items()
    }
    both = {"texts": texts, "speed": speed}
    return values | {key: asdict(comparison) for key, comparison in both.items() if comparison is not None}


def _print_results(results: Mapping[str, ModelEvaluation]) -> None:
    for table in (
        _table(results, _perplexity_rows, ("protocol", "text", "perplexity")),
        _table(results, _task_rows, ("task", "metric", "value")),
    ):
        if table.row_count:
            Console().print(table)


def _table(
    results: Mapping[str, ModelEvaluation],
    rows_of: Callable[[ModelEvaluation], Iterator[Row]],
    headings: tuple[str, str, str],
) -> Table:
    """Return a table of one kind of measurement; ratios are to the first model's value in the same row."""
    words = [Column(heading, overflow="fold") for heading in ("model", *headings[:2])]
    numbers = [Column(heading, justify="right", no_wrap=True) for heading in ("parameters", headings[2], "vs. first")]
    table = Table(*words, *numbers)
    first: dict[tuple[str, str], float] = {}
    for name, result in results.items():
        parameters = "–" if result.footprint is None else f"{result.footprint.parameters:,}"
        for what, on, value, error in rows_of(result):
            base = first.setdefault((what, on), value)
            ratio = f"{_short(value / base)}×" if base else "–"
            table.add_row(*map(escape, (name, what, on)), parameters, f"{_short(value)}{error}", ratio)
    return table


def _short(value: float) -> str:
    return f"{value:.3f}" if value < 1e6 else f"{value:.3e}"


def _perplexity_rows(result: ModelEvaluation) -> Iterator[Row]:
    for score in result.perplexity:
        yield score.protocol, score.text, score.perplexity, ""
    if result.lambada is not None:
        yield result.lambada.protocol, result.lambada.text, result.lambada.perplexity, ""


def _task_rows(result: ModelEvaluation) -> Iterator[Row]:
    if result.lambada is not None:
        yield "lambada-openai", "accuracy, %", result.lambada.accuracy, ""
    for score in result.lm_eval:
        yield score.task, score.measured, score.value, "" if score.stderr is None else f" ± {score.stderr:.3f}"


def _print_speed(speed: SpeedComparison) -> None:
    table = Table("speed", "dense tokens/s", "student tokens/s", "ratio", "spread")
    for row in speed.rows:
        spread = f"{row.ratio_min:.2f}–{row.ratio_max:.2f}"
        table.add_row(row.phase, f"{row.dense:.1f}", f"{row.student:.1f}", f"{row.ratio:.2f}×", spread)
    Console().print(table)
