"""Compare students of MiniLM-L6 on five tasks of GLUE, as KroneckerBERT compares its own: sizes, starts and stages.

    python -m benchmarks.tasks --glue DIR --text wikitext-2/train.txt novels/*.txt --out runs/tasks

DIR holds CoLA, SST-2, MRPC, STS-B, RTE and QNLI. The teacher is fine-tuned first (experiments/tasks-teacher.yaml), on
RTE after QNLI; every student learns from it (experiments/tasks-student.yaml, with the rows of tasks-rows.yaml). Stage 1
is distillation on the text, stage 2 on the task. Scores are those of the dev sets that chose the epochs. What is done
is not done again, what was interrupted goes on; `--only` names the rows wanted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field
from transformers import PreTrainedModel

from benchmarks import experiment
from benchmarks.experiment import slug, workbench
from benchmarks.task_text import TASKS, lines_of
from kronpress.checkpoint import load, save
from kronpress.checkpoint.files import read_json, write_json
from kronpress.data import read_text
from kronpress.distill import Distill
from kronpress.errors import KronpressError
from kronpress.finetune import Finetune
from kronpress.memory import keep_freed_memory
from kronpress.records import ModelScore, encode
from kronpress.run import Recipe
from kronpress.step import Workbench
from kronpress.validation import Checked

_TABLE = experiment.table("tasks-rows")
STARTS = experiment.starts(_TABLE["starts"])


class Row(Checked):
    """One line of the table.

    Attributes:
        start: how the student begins.
        stage_one: whether it is distilled on text.
        overrides: of the recipe.
    """

    start: str
    stage_one: bool = True
    overrides: dict[str, Any] = Field(default={})


ROWS = {name: Row.model_validate(fields) for name, fields in _TABLE["rows"].items()}


@dataclass(frozen=True)
class Study:
    """Where data and results are, and how long to train."""

    glue: Path
    text: Sequence[Path]
    out: Path
    tokens: int
    tasks: Sequence[str]
    seeds: int
    epochs: float

    def teacher(self, *, overrides: Mapping[str, Any] | None = None) -> dict[str, ModelScore]:
        """Fine-tune the teacher, or read what an earlier call found; `overrides` are those of its recipe.

        From RTE alone MiniLM does not learn entailment, so it learns QNLI before (STILTs, Phang et al., 2018).
        """
        wanted = [*self.tasks, *(["qnli"] if "rte" in self.tasks else [])]
        changes = {"finetune.tasks.qnli.data": str(self._qnli())} if "rte" in self.tasks else {}
        recipe = experiment.recipe("tasks-teacher", overrides=self._overrides() | changes | dict(overrides or {}))
        return self._fine_tuned(recipe, self._bench("teacher"), wanted)

    def _overrides(self) -> dict[str, Any]:
        return {"finetune.data": str(self.glue), "finetune.epochs": self.epochs, "finetune.seeds": self.seeds}

    def _qnli(self) -> Path:
        """Cut QNLI's dev file, all that is there, in two."""
        folder = self.out / "qnli"
        folder.mkdir(parents=True, exist_ok=True)
        head, *rows = (self.glue / "QNLI" / "dev.tsv").read_text(encoding="utf-8").splitlines()
        for split, some in (("train", rows[:-400]), ("dev", rows[-400:])):
            (folder / f"{split}.tsv").write_text("\n".join([head, *some]) + "\n", encoding="utf-8")
        return folder

    def row(self, name: str) -> dict[str, ModelScore]:
        """Fine-tune one student on every task, or read what an earlier call found."""
        bench = self._bench(slug(name))
        bench.student = self._student(ROWS[name])
        return self._fine_tuned(self._recipe(ROWS[name]), bench, self.tasks)

    def _recipe(self, row: Row) -> Recipe:
        teacher = str(self.out / "teacher" / "{task}" / "student")
        overrides = self._overrides() | {"finetune.teacher": teacher, "distill.tokens": self.tokens, **row.overrides}
        return experiment.recipe("tasks-student", STARTS[row.start], overrides=overrides)

    def _fine_tuned(self, recipe: Recipe, bench: Workbench, tasks: Sequence[str]) -> dict[str, ModelScore]:
        """Return for each task of the table what the finetune step of a recipe tells of the student."""
        step: Finetune = experiment.only(recipe, Finetune)
        step = step.model_copy(update={"tasks": {name: step.tasks[name] for name in tasks}})
        rows = {task.task: task.models for task in step.run(bench).tasks}
        return {name: next(row for row in rows[name] if row.model == "student") for name in self.tasks}

    def _student(self, row: Row) -> PreTrainedModel:
        recipe = self._recipe(row)
        if not row.stage_one:
            return self._begun(recipe, row.start)
        folder = self.out / f"stage-1-{slug(row.start)}-{self.tokens}"
        made = json.loads(json.dumps([recipe.to_yaml().partition("step: finetune")[0], self._digest]))
        if not (folder / "report.json").exists():
            bench = self._bench(f"training-{slug(row.start)}-{self.tokens}", text=True)
            bench.student = self._begun(recipe, row.start)
            record = experiment.only(recipe, Distill).run(bench)
            save(bench.student, folder, tokenizer=bench.tokenizer)
            write_json(folder / "report.json", {**encode(record), "made": made})
        elif read_json(folder / "report.json").get("made") != made:
            raise KronpressError(f"{folder} holds a stage 1 made from other text or otherwise; name another --out")
        return load(folder)

    def _begun(self, recipe: Recipe, start: str) -> PreTrainedModel:
        """Return the student before any training."""
        bench = self._bench(f"start-{slug(start)}", text=True)
        experiment.make(recipe, bench)
        return bench.student

    def _bench(self, name: str, *, text: bool = False) -> Workbench:
        model = experiment.recipe("tasks-student").model
        return workbench(model, self._text if text else "", self.out / name)

    @property
    def _digest(self) -> str:
        return hashlib.sha256(self._text.encode()).hexdigest()

    @cached_property
    def _text(self) -> str:
        """Return the text of stage 1, and twice the texts of the tasks, which a table for the text should know."""
        lines = lines_of(self.glue)
        return "\n".join([*(read_text(str(path)).text for path in self.text), *lines, *lines])


def _with_those_before(tasks: Sequence[str]) -> list[str]:
    """Return tasks, and those from whose models they begin."""
    options = experiment.only(experiment.recipe("tasks-student"), Finetune).tasks
    wanted = set()
    for name in tasks:
        task: str | None = name
        while task is not None:
            wanted.add(task)
            task = options[task].after
    return [task for task in TASKS if task in wanted]


def _line(name: str, rows: Mapping[str, ModelScore], teacher: Mapping[str, ModelScore]) -> str:
    """Return a line in Markdown: scores, their average, and that in percent of the teacher's."""
    scores = [row.score.value for row in rows.values()]
    whole = statistics.fmean(teacher[task].score.value for task in rows)
    cells = [f"{rows[task].score.value:.1f}" if task in rows else "–" for task in TASKS]
    millions = min(row.footprint.parameters for row in rows.values()) / 1e6
    mean = statistics.fmean(scores)
    return f"| {name} | {millions:.2f} M | {' | '.join(cells)} | {mean:.1f} | {100 * mean / whole:.1f} |"


def main() -> None:
    """Run the rows of the table and print it in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--glue", type=Path, required=True)
    parser.add_argument("--text", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/tasks"))
    parser.add_argument("--tokens", type=int, default=1_000_000, help="of stage 1")
    parser.add_argument("--tasks", nargs="*", choices=TASKS, default=TASKS, help="and those learned before")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=float, default=5.0, help="of students on STS-B; others have their own")
    parser.add_argument("--only", nargs="*", choices=list(ROWS), help="rows")
    arguments = vars(parser.parse_args())
    only = arguments.pop("only")
    arguments["tasks"] = _with_those_before(arguments["tasks"])
    study = Study(**arguments)
    keep_freed_memory()
    print(f"| model | parameters | {' | '.join(TASKS)} | average | % of teacher's |")
    print(f"|---|---:|{'---:|' * len(TASKS)}---:|---:|")
    teacher = study.teacher()
    print(_line("teacher", teacher, teacher), flush=True)
    for name in ROWS:
        if not only or name in only:
            print(_line(name, study.row(name), teacher), flush=True)


if __name__ == "__main__":
    main()
