"""Commands that run recipes: run, compress, truncate and quantize."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from kronpress.cli import work
from kronpress.cli.app import Model, command
from kronpress.errors import KronpressError

Override = Annotated[
    list[str] | None, typer.Option("--override", "-o", help="Set a value of the recipe: distill.tokens=50000.")
]
Data = Annotated[
    str | None, typer.Option(help="Text to calibrate and train on: a file, a folder or several with commas.")
]
HeldOut = Annotated[str | None, typer.Option(help="Text to measure on; by default the last tenth of --data.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run in the same folder.")]


@command()
def run(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped recipe.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the run; runs/NAME by default.")] = None,
    override: Override = None,
    data: Data = None,
    held_out: HeldOut = None,
    resume: Resume = False,
) -> None:
    """Run a recipe; checkpoint, logs, model card and report.html go into one folder."""
    fields = _fields(data, held_out)
    work.run.run(recipe, out, overrides=override or (), fields=fields, resume=resume)


@command()
def compress(
    model: Model,
    out: Annotated[Path, typer.Option("--out", help="Folder for the compressed model; must be absent or empty.")],
    recipe: Annotated[str, typer.Option(help="A shipped recipe or a YAML file.")] = "halve-ffn",
    override: Override = None,
    data: Data = None,
    held_out: HeldOut = None,
    resume: Resume = False,
) -> None:
    """Compress a model by a recipe; the checkpoint goes straight into --out, the run's logs into --out/run."""
    fields = _fields(data, held_out) | {"model": model}
    work.run.compress(recipe, out, overrides=override or (), fields=fields, resume=resume)


@command()
def truncate(
    model: Model,
    out: Annotated[Path, typer.Option("--out", help="Folder for the shorter model; must be absent or empty.")],
    keep: Annotated[int | None, typer.Option(min=1, help="How many blocks stay.")] = None,
    blocks: Annotated[
        str,
        typer.Option(
            help="Which blocks stay: by their places, alt, distil, 3b3t, 6b, 6t or 3l; by what is measured on text, "
            "greedy or influence; or their numbers, counted from 0, with commas."
        ),
    ] = "alt",
    repair: Annotated[
        bool, typer.Option("--repair", help="Let the blocks that stay make up for the others, by text, untrained.")
    ] = False,
    data: Annotated[
        str | None, typer.Option(help="Text for greedy, influence and --repair; the bundled one if not given.")
    ] = None,
    held_out: HeldOut = None,
    resume: Resume = False,
) -> None:
    """Keep some of a model's blocks, without training; the result opens without kronpress."""
    fields = _fields(data, held_out) | {"model": model}
    numbers = [part.strip() for part in blocks.split(",")]
    chosen = [int(number) for number in numbers] if all(number.isdecimal() for number in numbers) else blocks
    step = {"blocks": chosen, "repair": repair} | ({} if keep is None else {"keep": keep})
    work.run.truncate(out, step, fields=fields, resume=resume)


@command()
def quantize(
    model: Model,
    out: Annotated[Path, typer.Option("--out", help="Folder for the quantized model; must be absent or empty.")],
    bits: Annotated[float, typer.Option(help="Bits of a weight: 8, 4, 3, 2, 1.58 (ternary) or 1.")],
    group: Annotated[
        str, typer.Option(help="Weights of a row that share a scale, such as 64; or row, or tensor for one scale.")
    ] = "64",
    shift: Annotated[
        bool,
        typer.Option("--shift", help="Store a shift beside each scale: levels from the lowest weight to the highest."),
    ] = False,
    tables: Annotated[
        float | None, typer.Option(help="Bits of the tables and the output head; by default as --bits, 32 leaves them.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Text whose outputs are to stay as they are; without one, weights are rounded.")
    ] = None,
    held_out: HeldOut = None,
    resume: Resume = False,
) -> None:
    """Put the weights of a model on a grid of a few bits, without training; --data TEXT loses much less."""
    fields = _fields(data, held_out) | {"model": model}
    scales = {"group": int(group) if group.isdecimal() else group} | ({"shift": True} if shift else {})
    work.run.quantize(out, bits, tables, scales=scales, fields=fields, resume=resume)


def _fields(data: str | None, held_out: str | None) -> dict[str, Any]:
    if held_out is not None and data is None:
        raise KronpressError("--held-out needs --data: the text to train on must not be measured on")
    if data is None:
        return {}
    return {"data": {"train": data} | ({} if held_out is None else {"held_out": held_out})}
