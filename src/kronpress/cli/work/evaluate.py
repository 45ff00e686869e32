"""Measure a model, alone or side by side with another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table
from transformers import PreTrainedModel

from kronpress.checkpoint import files
from kronpress.cli.work.opening import open_model
from kronpress.data import read_text, split_held_out
from kronpress.evaluate import PROTOCOLS, compare_speed, footprint, longest_protocol
from kronpress.evaluate.harness import Harness, parse_tasks
from kronpress.evaluate.inference import require_causal
from kronpress.evaluate.lambada import LAMBADA, read_lambada
from kronpress.memory import keep_freed_memory
from kronpress.precision import Precision, choose, computing_in, mixed_precision, number_format

Measure = Callable[[PreTrainedModel, Any, Sequence[PreTrainedModel]], Any]
"""From a model, its tokenizer and all the models that stand in the same table to JSON values."""


def evaluate(
    model: str,
    against: str | None,
    measures: Mapping[str, Measure],
    *,
    precision: Precision,
    speed: bool,
    json_file: Path | None,
) -> None:
    """Measure a model, and the one to compare it with first; both are opened before."""
    keep_freed_memory()
    opened = {name: open_model(name) for name in filter(None, (against, model))}
    for found, _ in opened.values():
        require_causal(found, what="kronpress evaluate")
    models = [found for found, _ in opened.values()]
    chosen = choose(precision, models[-1].device)
    typer.echo(f"matrix products in {chosen}")
    results: dict[str, Any] = {}
    with computing_in(chosen):
        for name, (found, tokenizer) in opened.items():
            results[name] = _prepared(found, name=name)
            with mixed_precision(found.device):
                results[name] |= {what: measure(found, tokenizer, models) for what, measure in measures.items()}
    _print_results(results)
    if speed and against is not None:
        results["speed"] = asdict(compare_speed(opened[against][0], opened[model][0]))
        _print_speed(results["speed"])
    if json_file is not None:
        files.write_json(json_file, results)


def perplexity(names: Sequence[str], data: str | None, max_windows: int | None) -> Measure:
    """Return what measures perplexity by protocols, the one that fits all models where none is named."""
    protocols = [PROTOCOLS[name] for name in names]
    corpus = read_text(data) if data else split_held_out(read_text("bundled:python-reference"))[1]

    def measure(model: PreTrainedModel, tokenizer: Any, models: Sequence[PreTrainedModel]) -> list[dict[str, Any]]:
        chosen = protocols or [PROTOCOLS[longest_protocol(*models)]]
        options: dict[str, Any] = {"name": corpus.name, "max_windows": max_windows}
        return [asdict(protocol.measure(model, tokenizer, corpus.text, **options)) for protocol in chosen]

    return measure


def lambada(path: str, limit: int | None) -> Measure:
    """Return what measures LAMBADA on the first passages of a file."""
    passages = read_lambada(path, limit=limit)
    return lambda model, tokenizer, _: asdict(LAMBADA.measure(model, tokenizer, passages, name=path))


def harness(tasks: str, include: str | None, limit: int | None) -> Measure:
    """Return what measures tasks of lm-evaluation-harness, named with commas."""
    chosen = Harness(parse_tasks(tasks), include=include, limit=limit)
    chosen.check()
    return lambda model, tokenizer, _: [asdict(result) for result in chosen.measure(model, tokenizer)]


def _prepared(model: PreTrainedModel, *, name: str) -> dict[str, Any]:
    """Return the size of a model and the number format, in which it computes from now on."""
    size, chosen = footprint(model, folder=Path(name) if Path(name).is_dir() else None), number_format(model.device)
    if chosen.name == "fp32":
        model.float()
    return {"footprint": asdict(size), "precision": chosen.name}


def _print_results(results: dict[str, Any]) -> None:
    """Print a table for each kind of measurement; ratios are to the first model's value in the same row."""
    headings = {"perplexity": ("protocol", "text", "perplexity"), "tasks": ("task", "metric", "value")}
    for kind, columns in headings.items():
        words = [Column(each, overflow="fold") for each in ("model", *columns[:2])]
        numbers = [Column(each, justify="right", no_wrap=True) for each in ("parameters", columns[2], "vs. first")]
        table = Table(*words, *numbers)
        first: dict[tuple[str, str], float] = {}
        for name, result in results.items():
            for what, on, value, error in _perplexity_rows(result) if kind == "perplexity" else _task_rows(result):
                base = first.setdefault((what, on), value)
                ratio = f"{_short(value / base)}×" if base else "–"
                parameters = f"{result['footprint']['parameters']:,}"
                table.add_row(*map(escape, (name, what, on)), parameters, f"{_short(value)}{error}", ratio)
        if table.row_count:
            Console().print(table)


def _short(value: float) -> str:
    return f"{value:.3f}" if value < 1e6 else f"{value:.3e}"


def _perplexity_rows(result: dict[str, Any]) -> list[tuple[str, str, float, str]]:
    rows = [*result.get("perplexity", []), *([result["lambada"]] if "lambada" in result else [])]
    return [(row["protocol"], Path(row["text"]).name, row["perplexity"], "") for row in rows]


def _task_rows(result: dict[str, Any]) -> list[tuple[str, str, float, str]]:
    rows = [("lambada-openai", "accuracy, %", result["lambada"]["accuracy"], "")] if "lambada" in result else []
    for row in result.get("lm_eval", []):
        metric = row["metric"] if row["filter"] == "none" else f"{row['metric']}, {row['filter']}"
        rows.append((row["task"], metric, row["value"], "" if row["stderr"] is None else f" ± {row['stderr']:.3f}"))
    return rows


def _print_speed(speed: dict[str, Any]) -> None:
    table = Table("speed", "dense tokens/s", "student tokens/s", "ratio", "spread")
    for row in speed["rows"]:
        spread = f"{row['ratio_min']:.2f}–{row['ratio_max']:.2f}"
        table.add_row(row["phase"], f"{row['dense']:.1f}", f"{row['student']:.1f}", f"{row['ratio']:.2f}×", spread)
    Console().print(table)
