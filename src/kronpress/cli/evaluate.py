"""The command that measures a model, alone or side by side with another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table
from transformers import PreTrainedModel

from kronpress.checkpoint import files
from kronpress.cli.app import app
from kronpress.cli.opening import Model, open_model
from kronpress.data import Corpus, read_text, split_held_out
from kronpress.errors import KronpressError
from kronpress.evaluate import PROTOCOLS, PerplexityProtocol, compare_speed, footprint, longest_protocol
from kronpress.evaluate.harness import Harness, parse_tasks
from kronpress.evaluate.inference import require_causal
from kronpress.evaluate.lambada import LAMBADA, read_lambada
from kronpress.memory import keep_freed_memory
from kronpress.precision import Precision, choose, computing_in, mixed_precision, number_format

Measure = Callable[[PreTrainedModel, Any], Any]

# Blank lines, because the help joins lines that have none between them.
_PROTOCOL_LIST = "\n\n".join(
    [
        "Protocols of perplexity:",
        *(f"{name}: {protocol.summary}." for name, protocol in PROTOCOLS.items()),
        "tokens-N: as tokens-512, with windows of any number N of tokens from 2 on.",
    ]
)


@app.command(epilog=_PROTOCOL_LIST)
def evaluate(
    model: Model,
    data: Annotated[
        str | None,
        typer.Option(
            help="Text to measure on, the whole of it: one that was not trained on. "
            "By default the last tenth of the bundled one."
        ),
    ] = None,
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            help="Protocol of perplexity, one of those below; may be repeated. By default tokens-512, or tokens-N "
            "with the N tokens that the models see, or none where --lambada or --lm-eval is given and --data is not."
        ),
    ] = None,
    against: Annotated[str | None, typer.Option(help="A dense model to compare with, in the same run.")] = None,
    max_windows: Annotated[int | None, typer.Option(min=1, help="Measure the first windows only.")] = None,
    lambada: Annotated[
        str | None, typer.Option(help="LAMBADA's passages, a .jsonl file: accuracy, perplexity.")
    ] = None,
    lm_eval: Annotated[
        str | None, typer.Option(help="Tasks of lm-evaluation-harness, with commas; needs the extra lm-eval.")
    ] = None,
    lm_eval_include: Annotated[str | None, typer.Option(help="Folder with task files (YAML) of your own.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Take the first passages of LAMBADA and examples of tasks only.")
    ] = None,
    precision: Annotated[
        Precision, typer.Option(help="Number format of matrix products; auto is the one that is faster here.")
    ] = "auto",
    speed: Annotated[bool, typer.Option("--speed", help="Compare speed with --against, alternating.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the results to this file.")] = None,
) -> None:
    """Measure perplexity by named protocols, tasks, size and speed; ratios are to --against, measured side by side."""
    keep_freed_memory()
    if speed and against is None:
        raise KronpressError("--speed compares two models; name the other one with --against")
    measures: dict[str, Measure] = {}
    protocols = [PROTOCOLS[name] for name in protocol or ()]
    corpus = _corpus(data) if protocols or data is not None or not (lambada or lm_eval) else None
    if lambada is not None:
        measures["lambada"] = _lambada(lambada, limit)
    if lm_eval is not None:
        measures["lm_eval"] = _harness(Harness(parse_tasks(lm_eval), include=lm_eval_include, limit=limit))
    elif lm_eval_include is not None:
        raise KronpressError("--lm-eval-include holds tasks for --lm-eval; name which of them to measure")
    opened = {name: open_model(name) for name in filter(None, (against, model))}
    for found, _ in opened.values():
        require_causal(found, what="kronpress evaluate")
    if corpus is not None:
        default = longest_protocol(*(found for found, _ in opened.values()))
        measures["perplexity"] = _perplexity(protocols or [PROTOCOLS[default]], corpus, max_windows)
    chosen = choose(precision, opened[model][0].device)
    typer.echo(f"matrix products in {chosen}")
    with computing_in(chosen):
        results: dict[str, Any] = {name: _measure(*pair, measures, name=name) for name, pair in opened.items()}
    _print_results(results)
    if speed and against is not None:
        results["speed"] = asdict(compare_speed(opened[against][0], opened[model][0]))
        _print_speed(results["speed"])
    if json_file is not None:
        files.write_json(json_file, results)


def _corpus(data: str | None) -> Corpus:
    return split_held_out(read_text("bundled:python-reference"))[1] if data is None else read_text(data)


def _perplexity(protocols: list[PerplexityProtocol], corpus: Corpus, max_windows: int | None) -> Measure:
    return lambda model, tokenizer: [
        asdict(each.measure(model, tokenizer, corpus.text, name=corpus.name, max_windows=max_windows))
        for each in protocols
    ]


def _lambada(path: str, limit: int | None) -> Measure:
    passages = read_lambada(path, limit=limit)
    return lambda model, tokenizer: asdict(LAMBADA.measure(model, tokenizer, passages, name=path))


def _harness(harness: Harness) -> Measure:
    harness.check()
    return lambda model, tokenizer: [asdict(result) for result in harness.measure(model, tokenizer)]


def _measure(model: PreTrainedModel, tokenizer: Any, measures: dict[str, Measure], *, name: str) -> dict[str, Any]:
    size, chosen = footprint(model, folder=Path(name) if Path(name).is_dir() else None), number_format(model.device)
    if chosen.name == "fp32":
        model.float()
    with mixed_precision(model.device):
        measured = {what: measure(model, tokenizer) for what, measure in measures.items()}
    return {"footprint": asdict(size), "precision": chosen.name, **measured}


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
