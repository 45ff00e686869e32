"""Run recipes and say what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from kronpress import processes
from kronpress.report import print_summary
from kronpress.run import Run, execute, execute_into, make_recipe, read_recipe
from kronpress.validation import path_name


def run(recipe: str, out: Path | None, *, overrides: Sequence[str], fields: dict[str, Any], resume: bool) -> None:
    """Run a recipe in a folder, by default one that is called after it."""
    folder = out or Path("runs") / path_name(Path(recipe).stem, what="the folder of a run")
    finished = execute(read_recipe(recipe, overrides=overrides, fields=fields), folder, resume=resume)
    if processes.is_main():
        print_summary(finished.summary())
        typer.echo(f"model:  {finished.checkpoint}\nreport: {finished.report_page}")


def quantize(
    out: Path, bits: float, tables: float | None, *, scales: dict[str, Any], fields: dict[str, Any], resume: bool
) -> None:
    """Put a model on grids in a folder inside of `out`, with checkpoint and report at the top of `out`."""
    wide = bits if tables is None else tables
    step = {"step": "quantize", "weights": {"bits": bits, **scales}, "tables": {"bits": wide, **scales}}
    steps = [step | {"fit": "compensated"}, {"step": "evaluate"}] if "data" in fields else [step]
    finished = execute_into(make_recipe({"steps": steps, **fields}), out, resume=resume)
    _tell(out, finished)


def truncate(out: Path, step: dict[str, Any], *, fields: dict[str, Any], resume: bool) -> None:
    """Keep some blocks of a model in a folder inside of `out`, with checkpoint and report at the top of `out`."""
    steps = [{"step": "truncate", **step}] + ([{"step": "evaluate"}] if "data" in fields else [])
    finished = execute_into(make_recipe({"steps": steps, **fields}), out, resume=resume)
    _tell(out, finished)


def compress(recipe: str, out: Path, *, overrides: Sequence[str], fields: dict[str, Any], resume: bool) -> None:
    """Run a recipe in a folder inside of `out`, with checkpoint and report at the top of `out`."""
    finished = execute_into(read_recipe(recipe, overrides=overrides, fields=fields), out, resume=resume)
    _tell(out, finished)


def _tell(out: Path, finished: Run) -> None:
    """Print what came of a run whose checkpoint lies at the top of `out`."""
    print_summary(finished.summary())
    typer.echo(f"model:  {out}\nreport: {out / finished.report_page.name}")
