"""A run whose finished model lies at the top of a folder, with the run itself below it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from kronpress import processes
from kronpress.checkpoint import files
from kronpress.errors import KronpressError
from kronpress.lock import NOTE, locked
from kronpress.run.execution import execute
from kronpress.run.folder import Run, holds_run
from kronpress.run.recipe import Recipe

_RUN = "run"


def execute_into(recipe: Recipe, folder: Path, *, resume: bool = False) -> Run:
    """Run a recipe in a folder inside of `folder`, and move checkpoint and report up into it.

    Raises:
        KronpressError: there are several processes, the folder holds something else, or a step meets bad input.
    """
    if processes.count() > 1:
        raise KronpressError("compress works in one process; start several with: torchrun … -m kronpress run RECIPE")
    files.require_possible(folder)
    with locked(folder):
        if not holds_run(folder / _RUN):
            files.require_empty(folder, besides=[NOTE, _RUN])
        elif not resume:
            raise KronpressError(
                f"{folder} already holds a run, which is left untouched; add --resume or name a new folder"
            )
        run = execute(recipe, folder / _RUN, resume=resume)
        publish(run, folder)
    return run


def publish(run: Run, folder: Path) -> None:
    """Move the finished checkpoint up, config.json last: before that the folder does not open as a model."""
    if run.checkpoint.is_dir():
        for path in sorted(run.checkpoint.iterdir(), key=lambda path: path.name == "config.json"):
            os.replace(path, folder / path.name)
        run.checkpoint.rmdir()
    with files.replacing(folder / run.report_page.name) as partial:
        shutil.copyfile(run.report_page, partial)
