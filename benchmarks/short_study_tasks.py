"""The Short Study downstream: truncated, distilled and pruned students fine-tuned, with every technique.

    python -m benchmarks.short_study_tasks --glue DIR --out runs/short-study
    python -m benchmarks.short_study_tasks --glue DIR --out runs/short-study --tasks rte --techniques plain

The students are arms of experiments/short-study-arms.yaml (see benchmarks/short_study.py), and so are the techniques.
DIR holds RTE, MRPC and SST-2. The teacher of a task is the dense model, fine-tuned on it; a part of the training set
selects epochs, and the scores are those of the dev sets. `wikitext` trains on WikiText-2 as a language model. Rows join
benchmarks/results/short-study-tasks.json. What is done is not done again, what was interrupted goes on.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks import experiment
from benchmarks.experiment import slug
from benchmarks.measured import evaluated, kept
from benchmarks.short_study import Arm, Study, rate_of, recipe_of
from kronpress.checkpoint import files
from kronpress.checkpoint.files import write_text
from kronpress.evaluate import TextSet
from kronpress.evaluate.measure import Evaluation
from kronpress.losses import compares, parse_losses
from kronpress.memory import keep_freed_memory
from kronpress.records import FinetuneRecord, TrainingRecord
from kronpress.run import Run, execute

_ARMS = experiment.table("short-study-arms")
_TABLE = _ARMS["downstream"]
TASKS: list[str] = _TABLE["tasks"]
TECHNIQUES: dict[str, Any] = _TABLE["techniques"]
WIKITEXT = "wikitext"
_FOLDERS = {"rte": "RTE", "mrpc": "MRPC", "sst-2": "SST-2"}


@dataclass(frozen=True)
class Downstream:
    """Where data, runs and results are."""

    study: Study
    glue: Path
    out: Path
    result: Path

    def teacher(self, task: str) -> dict[str, Any]:
        """Fine-tune the dense model on a task, or read how good it became."""
        return kept(self.result, f"teacher, {task}", lambda: self._taught(task)[1])

    def on(self, task: str, student: str, technique: str) -> dict[str, Any]:
        """Fine-tune a student on a task with a technique, or read how good it became."""
        return kept(self.result, f"{student}, {task}, {technique}", partial(self._learned, task, student, technique))

    def _taught(self, task: str) -> tuple[str, dict[str, Any]]:
        """Return the teacher of a task and its row."""
        run, row = self._run(task, _ARMS["model"], f"teacher-{task}", TECHNIQUES["plain"], None)
        return str(run.checkpoint if task == WIKITEXT else run.step_folder(0) / task / "student"), row

    def _learned(self, task: str, student: str, technique: str) -> dict[str, Any]:
        losses = TECHNIQUES[technique]
        teacher = self._taught(task)[0] if compares(parse_losses(losses)) else None
        run, row = self._run(task, self._student(student), slug(f"{student}-{task}-{technique}"), losses, teacher)
        for folder in (run.checkpoint, run.step_folder(0) / task):
            files.remove(folder)  # so many students would fill the disk
        return row

    def _student(self, name: str) -> str:
        """Return the model of a student, trained on text as its arm says."""
        fields = _TABLE["students"][name]
        arm = Arm(**fields, rate=rate_of(fields["start"]))
        return str(self.study.student(arm, self.out / f"student-{slug(name)}"))

    def _run(
        self, task: str, model: str, name: str, losses: dict[str, Any], teacher: str | None
    ) -> tuple[Run, dict[str, Any]]:
        """Run a recipe that fine-tunes a model; return the run and the row of its result."""
        run_on = self._wikitext if task == WIKITEXT else partial(self._scored, task)
        return run_on(model, self.out / name, losses, teacher)

    def _scored(
        self, task: str, model: str, folder: Path, losses: dict[str, Any], teacher: str | None
    ) -> tuple[Run, dict[str, Any]]:
        settings = {**_TABLE["settings"], "epochs": _TABLE["epochs"][task]}
        tasks = {task: {"data": str(self._data(task))}}
        step = {"step": "finetune", "tasks": tasks, **settings, "losses": losses, "teacher": teacher}
        run = execute(recipe_of(model, [step]), folder, resume=True)
        record = run.report(0).record
        assert isinstance(record, FinetuneRecord)
        score = record.tasks[0].of("student")
        assert score is not None and score.seeds[0].training is not None
        row = {"score": score.score.value, "examples": dict(record.tasks[0].examples)}
        return run, {**row, "seconds": score.seeds[0].training.seconds, "precision": run.manifest().precision}

    def _data(self, task: str) -> Path:
        """Return the folder of a task, of whose training examples a share may be drawn."""
        share, source = _TABLE["share"].get(task), self.glue / _FOLDERS[task]
        if share is None:
            return source
        folder = self.out / "data" / f"{share}" / source.name
        if not (folder / "train.tsv").exists():
            head, *rows = (source / "train.tsv").read_text(encoding="utf-8").splitlines()
            drawn = random.Random(0).sample(rows, round(share * len(rows)))
            write_text(folder / "dev.tsv", (source / "dev.tsv").read_text(encoding="utf-8"))
            write_text(folder / "train.tsv", "\n".join([head, *drawn]) + "\n")
        return folder

    def _wikitext(
        self, model: str, folder: Path, losses: dict[str, Any], teacher: str | None
    ) -> tuple[Run, dict[str, Any]]:
        train = _ARMS["data"]["train"]["encyclopedia"]["source"]
        step = {"step": "distill", "losses": losses, **_TABLE[WIKITEXT], **({"teacher": teacher} if teacher else {})}
        recipe = recipe_of(model, [step], data={"train": train})
        run, record = evaluated(recipe, self.study.evaluation, folder=folder, dense=_ARMS["model"])
        training = run.report(0).record
        assert isinstance(training, TrainingRecord) and record.texts is not None
        row = {"ratio": record.texts.general, "tokens": training.tokens, "seconds": training.seconds}
        return run, {**row, "precision": run.manifest().precision}


def main(given: Sequence[str] | None = None) -> None:
    """Fine-tune the students and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--glue", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/short-study"))
    parser.add_argument("--texts", type=Path, default=experiment.FOLDER / "wikitext.yaml")
    parser.add_argument("--students", nargs="*", choices=list(_TABLE["students"]), default=list(_TABLE["students"]))
    parser.add_argument("--tasks", nargs="*", choices=TASKS, default=TASKS)
    parser.add_argument("--techniques", nargs="*", choices=list(TECHNIQUES), default=list(TECHNIQUES))
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/short-study-tasks.json"))
    arguments = parser.parse_args(given)
    keep_freed_memory()
    study = Study(arguments.out, arguments.json, Evaluation(texts=TextSet.read(arguments.texts)))
    downstream = Downstream(study, arguments.glue, arguments.out, arguments.json)
    print("| task | model | technique | score or ratio |\n|---|---|---|---:|")
    for task in arguments.tasks:
        _print(task, "teacher", "plain", downstream.teacher(task))
        for student, technique in product(arguments.students, arguments.techniques):
            _print(task, student, technique, downstream.on(task, student, technique))


def _print(task: str, model: str, technique: str, row: dict[str, Any]) -> None:
    print(f"| {task} | {model} | {technique} | {row.get('score', row.get('ratio')):.4g} |", flush=True)


if __name__ == "__main__":
    main()
