"""Run a recipe, and measure what comes out of it on a set of texts beside the dense model."""

from __future__ import annotations

from pathlib import Path

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
    """Run a recipe in a folder and measure its finished model, or go on with what an earlier call did.

    What is measured of the dense model, by default that of the recipe, is kept beside the folder, for the other runs
    there.
    """
    run = execute(recipe, folder, resume=True)
    path = result_file(folder, texts)
    if not path.exists():
        write_json(path, encode(_compared(dense or recipe.model, texts, run, precision=recipe.precision)))
    record = decode(EvaluationRecord, read_json(path), place=path, remedy="remove it, and it is measured again")
    assert record.texts is not None
    return run, record.texts


def result_file(folder: Path, texts: TextSet) -> Path:
    """Return where the result of a run is kept."""
    return folder.with_name(f"{folder.name}-{texts.fingerprint[:12]}.json")


def _compared(name: str, texts: TextSet, run: Run, *, precision: Precision) -> EvaluationRecord:
    model, tokenizer = open_model(name)
    dense, student = ready(model), ready(load(run.checkpoint))
    cache = Workbench(student, dense, tokenizer, NO_TEXT, NO_TEXT, run.folder, run.folder.with_name("teacher.json"))
    with computing_in(choose(precision, student.device)):
        return Evaluation(texts=texts).compare(dense, student, tokenizer, stage=run.folder.name, recall=cache.remember)
