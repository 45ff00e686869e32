"""Commands that use a model: evaluate, generate and verify."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from transformers import PreTrainedModel

from kronpress import checkpoint
from kronpress.checkpoint import files, load_with_tokenizer
from kronpress.cli.app import app
from kronpress.data import read_text, split_held_out
from kronpress.errors import KronpressError
from kronpress.evaluate import PROTOCOLS, compare_speed, footprint, generate_samples
from kronpress.memory import keep_freed_memory
from kronpress.precision import mixed_precision

Model = Annotated[str, typer.Argument(help="A folder, a hub id, a GGUF file or bundled:smollm2-135m.")]


@app.command()
def evaluate(
    model: Model,
    data: Annotated[
        str | None, typer.Option(help="Text to measure on; by default the last tenth of the bundled one.")
    ] = None,
    protocol: Annotated[
        list[str] | None,
        typer.Option(help=f"One of {', '.join(PROTOCOLS)}; may be repeated; tokens-512 by default."),
    ] = None,
    against: Annotated[str | None, typer.Option(help="A dense model to compare with, in the same run.")] = None,
    max_windows: Annotated[int | None, typer.Option(min=1, help="Measure the first windows only.")] = None,
    float32: Annotated[bool, typer.Option("--float32", help="Never compute in bfloat16.")] = False,
    speed: Annotated[bool, typer.Option("--speed", help="Compare speed with --against, alternating.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the results to this file.")] = None,
) -> None:
    """Measure perplexity by named protocols, size and speed; ratios are to --against, measured side by side."""
    keep_freed_memory()
    if speed and against is None:
        raise KronpressError("--speed compares two models; name the other one with --against")
    protocols = [PROTOCOLS[name] for name in protocol or ("tokens-512",)]
    corpus = read_text(data) if data else split_held_out(read_text("bundled:python-reference"))[1]
    results: dict[str, Any] = {}
    models = {}
    for name in filter(None, (against, model)):
        models[name], tokenizer = _open(name)
        results[name] = {
            "footprint": asdict(footprint(models[name], folder=Path(name) if Path(name).is_dir() else None))
        }
        with nullcontext() if float32 else mixed_precision(models[name].device):
            results[name]["perplexity"] = [
                asdict(each.measure(models[name], tokenizer, corpus.text, name=corpus.name, max_windows=max_windows))
                for each in protocols
            ]
    _print_results(results)
    if speed and against is not None:
        results["speed"] = asdict(compare_speed(models[against], models[model]))
        _print_speed(results["speed"])
    if json_file is not None:
        files.write_json(json_file, results)


def _open(name: str) -> tuple[PreTrainedModel, Any]:
    model, tokenizer = load_with_tokenizer(name)
    if tokenizer is None:
        raise KronpressError(f"the model '{name}' has no readable tokenizer beside it; add its tokenizer files")
    return model, tokenizer


def _print_results(results: dict[str, Any]) -> None:
    table = Table("model", "parameters", "protocol", "text", "perplexity", "vs. first")
    first: dict[str, float] = {}
    for name, result in results.items():
        for row in result["perplexity"]:
            base = first.setdefault(row["protocol"], row["perplexity"])
            parameters = f"{result['footprint']['parameters']:,}"
            ratio = f"{row['perplexity'] / base:.3f}×"
            words = map(escape, (name, parameters, row["protocol"], Path(row["text"]).name))
            table.add_row(*words, f"{row['perplexity']:.3f}", ratio)
    Console().print(table)


def _print_speed(speed: dict[str, Any]) -> None:
    table = Table("speed", "dense tokens/s", "student tokens/s", "ratio", "spread")
    for row in speed["rows"]:
        spread = f"{row['ratio_min']:.2f}–{row['ratio_max']:.2f}"
        table.add_row(row["phase"], f"{row['dense']:.1f}", f"{row['student']:.1f}", f"{row['ratio']:.2f}×", spread)
    Console().print(table)


@app.command()
def generate(
    model: Model,
    prompt: Annotated[str, typer.Option(help="Text to continue.")] = "Once upon a time",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens to write at most.")] = 60,
) -> None:
    """Continue a prompt, greedily."""
    opened, tokenizer = _open(model)
    with torch.inference_mode():
        (text,) = generate_samples(opened, tokenizer, [prompt], max_new_tokens=max_new_tokens)
    typer.echo(prompt + text)


@app.command()
def verify(folder: Annotated[Path, typer.Argument(help="A checkpoint folder that kronpress wrote.")]) -> None:
    """Check that a checkpoint is the one that was saved: hashes of its files, and the outputs of its probe."""
    if not folder.is_dir():
        raise KronpressError(f"there is no folder {folder}; name one that kronpress wrote a checkpoint into")
    found = checkpoint.verify(folder)
    typer.echo(
        f"{folder}: {found['files']} files match their hashes; "
        f"the outputs deviate from the probe by {found['deviation']:.2g} standard deviations"
    )
