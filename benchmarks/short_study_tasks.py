"""The Short Study downstream: truncated, distilled and pruned students fine-tuned, with every technique.

    python -m benchmarks.short_study_tasks --glue DIR --out runs/short-study [--students truncated] [--tasks rte]

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
from kronpress.memory import keep_freed_memory
from kronpress.records import FinetuneRecord, ModelScore, TrainingRecord
from kronpress.run import execute

_ARMS = experiment.table("short-study-arms")
_TABLE = _ARMS["downstream"]
_TASKS: dict[str, Any] = _TABLE["tasks"]
TECHNIQUES: dict[str, Any] = _TABLE["techniques"]
WIKITEXT = "wikitext"
NAMES = [*_TASKS["names"], WIKITEXT]
_FOLDERS = {"rte": "RTE", "mrpc": "MRPC", "sst-2": "SST-2"}


@dataclass(frozen=True)
class Downstream:
    """Where data, runs and results are."""

    study: Study
    glue: Path
    out: Path
    result: Path

    def on(self, task: str, student: str) -> dict[str, Any]:
        """Fine-tune a student on a task with every technique, or read what an earlier call found."""
        measure = partial(self._wikitext, student) if task == WIKITEXT else partial(self._scores, task, student)
        return kept(self.result, f"{student}, {task}", measure)

    def _scores(self, task: str, student: str) -> dict[str, Any]:
        first, *others = TECHNIQUES
        baselines = {slug(name): {"losses": TECHNIQUES[name]} for name in others}
        teacher, _ = self._finetuned(task, _ARMS["model"], f"teacher-{task}", teacher=None, **_TASKS["teacher"])
        step = {"losses": TECHNIQUES[first], "baselines": baselines, "teacher": str(teacher / task / "student")}
        _, scores = self._finetuned(task, self._student(student), f"{slug(student)}-{task}", **step)
        labels = {"student": first, "teacher": "teacher", **{slug(name): name for name in others}}
        return {labels[score.model]: _row(score) for score in scores}

    def _finetuned(self, task: str, model: str, name: str, **step: Any) -> tuple[Path, Sequence[ModelScore]]:
        """Run a recipe that fine-tunes a model; return the folder of its step and the scores."""
        tasks = {task: {"data": str(self._data(task))}}
        recipe = recipe_of(model, [{"step": "finetune", "tasks": tasks, **_TASKS["settings"], **step}])
        run = execute(recipe, self.out / name, resume=True)
        record = run.report(0).record
        assert isinstance(record, FinetuneRecord)
        return run.step_folder(0), record.tasks[0].models

    def _data(self, task: str) -> Path:
        """Return the folder of a task, of whose training examples a share may be drawn."""
        share, source = _TASKS["share"].get(task), self.glue / _FOLDERS[task]
        if share is None:
            return source
        folder = self.out / "data" / source.name
        if not (folder / "train.tsv").exists():
            head, *rows = (source / "train.tsv").read_text(encoding="utf-8").splitlines()
            drawn = random.Random(0).sample(rows, round(share * len(rows)))
            write_text(folder / "dev.tsv", (source / "dev.tsv").read_text(encoding="utf-8"))
            write_text(folder / "train.tsv", "\n".join([head, *drawn]) + "\n")
        return folder

    def _student(self, name: str) -> str:
        """Return the model of a student, trained on text as its arm says."""
        fields = _TABLE["students"][name]
        arm = Arm(**fields, rate=rate_of(fields["start"]))
        return str(self.study.student(arm, self.out / f"student-{slug(name)}"))

    def _wikitext(self, student: str) -> dict[str, Any]:
        settings, train = _TABLE["wikitext"], _ARMS["data"]["train"]["encyclopedia"]["source"]
        rows, teacher, begun = {}, "", self._student(student)
        for name, losses in [("teacher", TECHNIQUES["plain"]), *TECHNIQUES.items()]:
            step = {"step": "distill", "losses": losses, **settings}
            model = _ARMS["model"] if name == "teacher" else begun
            if any(loss != "cross_entropy" for loss in losses):
                step["teacher"] = teacher
            folder = self.out / ("teacher-wikitext" if name == "teacher" else f"{slug(student)}-wikitext-{slug(name)}")
            recipe = recipe_of(model, [step], data={"train": train})
            run, record = evaluated(recipe, self.study.evaluation, folder=folder, dense=_ARMS["model"])
            training = run.report(0).record
            assert isinstance(training, TrainingRecord) and record.texts is not None
            ratios = {text.name: text.perplexity.ratio for text in record.texts.texts}
            rows[name] = {"ratio": ratios["encyclopedia"], "general": record.texts.general, "seconds": training.seconds}
            if name == "teacher":
                teacher = str(run.checkpoint)
            else:
                files.remove(run.checkpoint)
        return rows


def _row(score: ModelScore) -> dict[str, Any]:
    """Return what the result keeps of a model's score."""
    trained = [seed.training.seconds for seed in score.seeds if seed.training is not None]
    return {
        "score": score.score.value,
        "best on dev": score.best_on_dev and score.best_on_dev.value,
        "seconds": trained,
    }


def main(given: Sequence[str] | None = None) -> None:
    """Fine-tune the students and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--glue", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/short-study"))
    parser.add_argument("--texts", type=Path, default=experiment.FOLDER / "general.yaml")
    parser.add_argument("--students", nargs="*", choices=list(_TABLE["students"]), default=list(_TABLE["students"]))
    parser.add_argument("--tasks", nargs="*", choices=NAMES, default=NAMES)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/short-study-tasks.json"))
    arguments = parser.parse_args(given)
    keep_freed_memory()
    study = Study(arguments.out, arguments.json, Evaluation(texts=TextSet.read(arguments.texts)))
    downstream = Downstream(study, arguments.glue, arguments.out, arguments.json)
    print("| task | student | technique | score or ratio |\n|---|---|---|---:|")
    for task in arguments.tasks:
        for student in arguments.students:
            for technique, row in downstream.on(task, student).items():
                value = row["ratio"] if task == WIKITEXT else row["score"]
                print(f"| {task} | {student} | {technique} | {value:.4g} |", flush=True)


if __name__ == "__main__":
    main()
