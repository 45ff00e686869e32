"""Run a recipe, and measure what comes out of it on a set of texts beside the dense model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from kronpress.checkpoint import load
from kronpress.checkpoint.files import read_json, write_json
from kronpress.evaluate import TextSet
from kronpress.evaluate.measure import Evaluation
from kronpress.precision import Precision, choose, computing_in
from kronpress.records import EvaluationRecord, TextSetComparison, decode, encode
from kronpress.run import Recipe, Run, execute
from kronpress.run.inputs import open_model, ready
from kronpress.step import NO_TEXT, Workbench


def measured(
    recipe: Recipe, texts: TextSet, *, folder: Path, dense: str | None = None
) -> tuple[Run, TextSetComparison]:
    """Run a recipe in a folder and measure its finished model on a set of texts; see `evaluated`."""
    run, record = evaluated(recipe, Evaluation(texts=texts), folder=folder, dense=dense)
    assert record.texts is not None
    return run, record.texts


def evaluated(
    recipe: Recipe, evaluation: Evaluation, *, folder: Path, dense: str | None = None
) -> tuple[Run, EvaluationRecord]:
    """Run a recipe in a folder and measure its finished model, or go on with what an earlier call did.

    What is measured of the dense model, by default that of the recipe, is kept beside the folder, for the other runs
    there.
    """
    run = execute(recipe, folder, resume=True)
    assert evaluation.texts is not None
    path = result_file(folder, evaluation.texts)
    if not path.exists():
        write_json(path, encode(_compared(dense or recipe.model, evaluation, run, precision=recipe.precision)))
    return run, decode(EvaluationRecord, read_json(path), place=path, remedy="remove it, and it is measured again")


def kept(result: Path, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what a JSON file has under a name, which is measured and put beside the other rows where it is not there.

    The file is read again after the measuring: others may have put rows of theirs into it meanwhile.
    """
    rows: dict[str, dict[str, Any]] = read_json(result) if result.exists() else {}
    if name not in rows:
        row = measure()
        rows = {**(read_json(result) if result.exists() else {}), name: row}
        write_json(result, rows)
    return rows[name]


def result_file(folder: Path, texts: TextSet) -> Path:
    """Return where the result of a run is kept."""
    return folder.with_name(f"{folder.name}-{texts.fingerprint[:12]}.json")


def _compared(name: str, evaluation: Evaluation, run: Run, *, precision: Precision) -> EvaluationRecord:
    model, tokenizer = open_model(name)
    dense, student = ready(model), ready(load(run.checkpoint))
    cache = Workbench(student, dense, tokenizer, NO_TEXT, NO_TEXT, run.folder, run.folder.with_name("teacher.json"))
    with computing_in(choose(precision, student.device)):
        return evaluation.compare(dense, student, tokenizer, stage=run.folder.name, recall=cache.remember)
