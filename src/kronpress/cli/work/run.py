"""Run recipes and say what came of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from kronpress import processes
from kronpress.checkpoint import files
from kronpress.errors import KronpressError
from kronpress.lock import NOTE, locked
from kronpress.report import print_summary
from kronpress.run.execution import execute
from kronpress.run.folder import MANIFEST, Run
from kronpress.run.recipe import read_recipe
from kronpress.validation import path_name


def run(recipe: str, out: Path | None, *, overrides: Sequence[str], fields: dict[str, Any], resume: bool) -> None:
    """Run a recipe in a folder, by default one that is called after it."""
    folder = out or Path("runs") / path_name(Path(recipe).stem, what="the folder of a run")
    done = execute(read_recipe(recipe, overrides=overrides, fields=fields), folder, resume=resume)
    if processes.is_main():
        print_summary(done.summary())
        typer.echo(f"model:  {done.checkpoint}\nreport: {done.folder / 'report.html'}")


def compress(recipe: str, out: Path, *, overrides: Sequence[str], fields: dict[str, Any], resume: bool) -> None:
    """Run a recipe in a folder inside of `out`, and move the checkpoint up into `out`."""
    if processes.count() > 1:
        raise KronpressError("compress works in one process; start several with: torchrun … -m kronpress run RECIPE")
    files.require_possible(out)
    with locked(out):
        if (out / "run" / MANIFEST).exists() and not resume:
            raise KronpressError(
                f"{out} already holds a run, which is left untouched; add --resume or name a new folder"
            )
        if not (out / "run" / MANIFEST).exists():
            files.require_empty(out, besides=[NOTE, "run"])
        done = execute(read_recipe(recipe, overrides=overrides, fields=fields), out / "run", resume=resume)
        _publish(done, out)
    print_summary(done.summary())
    typer.echo(f"model:  {out}\nreport: {out / 'report.html'}")


def _publish(done: Run, folder: Path) -> None:
    """Move the finished checkpoint up, config.json last: before that the folder does not open as a model."""
    if done.checkpoint.is_dir():
        names = sorted(done.checkpoint.iterdir(), key=lambda path: path.name == "config.json")
        for path in names:
            os.replace(path, folder / path.name)
        done.checkpoint.rmdir()
    with files.replacing(folder / "report.html") as partial:
        shutil.copyfile(done.folder / "report.html", partial)
