"""MiniLM-L6 in few bits on tasks of GLUE: step by step against at once, at equal total epochs.

    python -m benchmarks.quantization --glue DIR --out runs/quantization [--tasks rte mrpc] [--arms progressive]

DIR holds CoLA, SST-2, MRPC, STS-B, RTE and QNLI. The teachers are fine-tuned first (experiments/tasks-teacher.yaml), on
RTE after QNLI. Each arm of experiments/quantization-arms.yaml is the stages of one run of experiments/quantization.yaml
on one task. A tenth of each training set selects epochs; the scores are those of the dev sets, and those that dev would
have selected stand beside. Each seed passes through all stages on its own. What is done is not done again, what was
interrupted goes on. The scores go to a JSON file, where those of further seeds, arms and tasks join them.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import experiment
from benchmarks.experiment import slug, workbench
from benchmarks.task_text import TASKS
from benchmarks.tasks import Study
from kronpress.checkpoint.files import read_json, write_json
from kronpress.finetune import Finetune
from kronpress.memory import keep_freed_memory
from kronpress.precision import choose, computing_in
from kronpress.records import ModelScore
from kronpress.run.inputs import computing_device

_TABLE = experiment.table("quantization-arms")
ARMS: dict[str, dict[str, Any]] = _TABLE["arms"]
PASSES: dict[str, float] = _TABLE["passes"]
TEACHERS = {"finetune.select_on": "train"}


@dataclass(frozen=True)
class Arms:
    """Where data and results are."""

    glue: Path
    out: Path
    tasks: Sequence[str]

    def teachers(self) -> dict[str, ModelScore]:
        """Fine-tune the teachers, or read what an earlier call found."""
        study = Study(glue=self.glue, text=(), out=self.out, tokens=0, tasks=self.tasks, seeds=1, epochs=5.0)
        return study.teacher(overrides=TEACHERS)

    def arm(self, name: str, task: str, seed: int) -> list[ModelScore]:
        """Train the stages of an arm on a task with one seed, or read what an earlier call found."""
        passes = PASSES.get(task, 1.0)
        stages = {
            label: {**stage, "epochs": passes * stage["epochs"], "start": stage.get("start")}
            for label, stage in ARMS[name]["stages"].items()
        }
        overrides: dict[str, Any] = {
            "finetune.data": str(self.glue),
            "finetune.tasks": {task: {}},
            "finetune.stages": stages,
            "finetune.augment": ARMS[name].get("augment"),
            "finetune.teacher": str(self.out / "teacher" / "{task}" / "student"),
        }
        recipe = experiment.recipe("quantization", overrides=overrides)
        step: Finetune = experiment.only(recipe, Finetune)
        bench = replace(workbench(recipe.model, "", self.out / slug(name) / f"seed-{seed}"), seed=seed)
        step.check(bench)
        (result,) = step.run(bench).tasks
        return [row for row in result.models if row.model in stages]


def keep(scores: dict[str, Any], label: str, row: ModelScore, *, seed: int) -> dict[str, Any]:
    """Put what one seed reached beside what others did, and return what is kept under the label."""
    kept: dict[str, Any] = scores.setdefault(label, {"seeds": {}})
    best = None if row.best_on_dev is None else row.best_on_dev.value
    kept |= {"bytes": row.footprint.bytes_on_disk, "epochs": row.epochs}
    kept["seeds"][str(seed)] = {"score": row.score.value, "best_on_dev": best}
    return kept


def _line(task: str, label: str, kept: Mapping[str, Any], *, whole: float) -> str:
    seeds = list(kept["seeds"].values())
    scores, best = [seed["score"] for seed in seeds], [seed["best_on_dev"] for seed in seeds]
    spread = f" ± {statistics.stdev(scores):.1f}" if len(scores) > 1 else ""
    score, selected = statistics.fmean(scores), "–" if None in best else f"{statistics.fmean(best):.1f}"
    size = f"{kept['bytes'] / 2**20:.2f}" if kept["bytes"] else "–"
    return f"| {task} | {label} | {score:.1f}{spread} | {100 * score / whole:.1f} | {selected} | {size} |"


def main() -> None:
    """Run the arms and print their scores in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--glue", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/quantization"))
    parser.add_argument("--tasks", nargs="*", choices=TASKS, default=TASKS)
    parser.add_argument("--arms", nargs="*", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--precision", choices=["auto", "bf16", "fp32"], default="auto")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/quantization.json"))
    arguments = parser.parse_args()
    arms = Arms(arguments.glue, arguments.out, arguments.tasks)
    keep_freed_memory()
    kept: dict[str, Any] = read_json(arguments.json) if arguments.json.exists() else {}
    print("| task | model | dev | % of teacher's | selected on dev | MiB |\n|---|---|---:|---:|---:|---:|")
    with computing_in(choose(arguments.precision, computing_device())):
        teachers = arms.teachers()
        for task in arguments.tasks:
            scores = kept.setdefault(task, {})
            teacher = keep(scores, "teacher", teachers[task], seed=0)
            whole = teachers[task].score.value
            print(_line(task, "teacher", teacher, whole=whole), flush=True)
            for arm in arguments.arms:
                rows = [(seed, row) for seed in arguments.seeds for row in arms.arm(arm, task, seed)]
                labels = {}
                for seed, row in rows:
                    label = f"{arm}: {row.model}"
                    labels[label] = keep(scores, label, row, seed=seed)
                write_json(arguments.json, kept)
                for label, entry in labels.items():
                    print(_line(task, label, entry, whole=whole), flush=True)


if __name__ == "__main__":
    main()
