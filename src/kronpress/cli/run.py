"""Commands that run recipes: run and compress."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from kronpress import processes
from kronpress.checkpoint import files
from kronpress.cli.app import app
from kronpress.errors import KronpressError
from kronpress.lock import NOTE, locked
from kronpress.pipeline import execute
from kronpress.recipe import read_recipe
from kronpress.report import print_summary
from kronpress.run_folder import MANIFEST, Run

Override = Annotated[
    list[str] | None, typer.Option("--override", "-o", help="Set a value of the recipe: distill.tokens=50000.")
]
Data = Annotated[
    str | None, typer.Option(help="Text to calibrate and train on: a file, a folder or several with commas.")
]
HeldOut = Annotated[str | None, typer.Option(help="Text to measure on; by default the last tenth of --data.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run in the same folder.")]


@app.command()
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
    folder = out or Path("runs") / Path(recipe).stem
    done = execute(read_recipe(recipe, overrides=override or (), fields=fields), folder, resume=resume)
    if processes.is_main():
        print_summary(done.summary())
        typer.echo(f"model:  {done.checkpoint}\nreport: {done.folder / 'report.html'}")


@app.command()
def compress(
    model: Annotated[str, typer.Argument(help="A folder, a hub id, a GGUF file or bundled:smollm2-135m.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the compressed model; must be absent or empty.")],
    recipe: Annotated[str, typer.Option(help="A shipped recipe or a YAML file.")] = "halve-ffn",
    override: Override = None,
    data: Data = None,
    held_out: HeldOut = None,
    resume: Resume = False,
) -> None:
    """Compress a model by a recipe; the checkpoint goes straight into --out, the run's logs into --out/run."""
    if processes.count() > 1:
        raise KronpressError("compress works in one process; start several with: torchrun … -m kronpress run RECIPE")
    fields = _fields(data, held_out) | {"model": model}
    files.require_possible(out)
    with locked(out):
        if (out / "run" / MANIFEST).exists() and not resume:
            raise KronpressError(
                f"{out} already holds a run, which is left untouched; add --resume or name a new folder"
            )
        if not (out / "run" / MANIFEST).exists():
            files.require_empty(out, besides=[NOTE, "run"])
        done = execute(read_recipe(recipe, overrides=override or (), fields=fields), out / "run", resume=resume)
        _publish(done, out)
    print_summary(done.summary())
    typer.echo(f"model:  {out}\nreport: {out / 'report.html'}")


def _fields(data: str | None, held_out: str | None) -> dict[str, Any]:
    if held_out is not None and data is None:
        raise KronpressError("--held-out needs --data: the text to train on must not be measured on")
    if data is None:
        return {}
    return {"data": {"train": data} | ({} if held_out is None else {"held_out": held_out})}


def _publish(done: Run, folder: Path) -> None:
    """Move the finished checkpoint up, config.json last: before that the folder does not open as a model."""
    if done.checkpoint.is_dir():
        names = sorted(done.checkpoint.iterdir(), key=lambda path: path.name == "config.json")
        for path in names:
            os.replace(path, folder / path.name)
        done.checkpoint.rmdir()
    with files.replacing(folder / "report.html") as partial:
        shutil.copyfile(done.folder / "report.html", partial)
