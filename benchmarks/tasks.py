"""Compare students of MiniLM-L6 on five tasks of GLUE, as KroneckerBERT compares its own: sizes, starts and stages.

    python -m benchmarks.tasks --glue DIR --text wikitext-2/train.txt novels/*.txt --out runs/tasks

DIR holds CoLA, SST-2, MRPC, STS-B, RTE and QNLI. The teacher is fine-tuned first, on RTE after QNLI; every student
learns from it. Stage 1 is distillation on the text, stage 2 on the task. Scores are those of the dev sets that chose
the epochs. What is done is not done again, what was interrupted goes on; `--only` names the rows wanted.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from kronpress.checkpoint import load, load_with_tokenizer, save
from kronpress.checkpoint.files import read_json, write_json
from kronpress.data import Corpus, read_text
from kronpress.distill import Distill
from kronpress.errors import KronpressError
from kronpress.factorize import Factorize
from kronpress.finetune import Finetune
from kronpress.memory import keep_freed_memory
from kronpress.step import Workbench
from kronpress.tasks import TASKS as TASK_SHELF

MODEL = "bundled:minilm-l6"
TASKS: dict[str, dict[str, Any]] = {  # as the teacher learns them
    "rte": {"epochs": 4, "batch": 32, "learning_rate": 5e-5, "after": "qnli"},
    "mrpc": {"epochs": 5},
    "cola": {"epochs": 5},
    "sts-b": {"epochs": 4},
    "sst-2": {"epochs": 2, "batch": 32},
}
OF_STUDENTS: dict[str, dict[str, Any]] = {  # those after another learn from labels too, at half the rate
    "rte": {"epochs": 4, "after": "mrpc"},
    "mrpc": {"epochs": 4, "after": "sts-b"},
    "cola": {"epochs": 10},
    "sts-b": {"unlabeled": ["rte", "mrpc"]},
    "sst-2": {"epochs": 2, "batch": 32},
}
_TABLE = {"sites": "embedding", "init": "van_loan_frequency"}


def grouped_table(*terms: int) -> dict[str, Any]:
    """Return a table with so many terms for the first 500 tokens, the next 2,000, 8,000 and all others."""
    groups = [{"tokens": tokens, "terms": count} for tokens, count in zip((500, 2000, 8000), terms[:-1], strict=True)]
    return {**_TABLE, "init": {"name": "van_loan_frequency", "groups": groups}, "right": (1, 384), "terms": terms[-1]}


def _blocks(init: str, **feed_forward: Any) -> list[dict[str, Any]]:
    return [
        {"sites": "attention", "init": init, "right": (2, 2)},
        {"sites": "feed_forward", "init": init, **feed_forward},
    ]


STARTS: dict[str, Sequence[Mapping[str, Any]]] = {
    "Kronecker, 8×": [*_blocks("van_loan", left=(8, 2)), {**_TABLE, "right": (1, 8)}],
    "Kronecker, whitened, grouped table, 4×": [
        grouped_table(384, 384, 144, 24),
        *_blocks("van_loan_whitened", right=(2, 2)),
    ],
    "Kronecker, whitened, grouped table, 8×": [
        grouped_table(384, 192, 64, 12),
        *_blocks("van_loan_whitened", left=(8, 2)),
    ],
    "Kronecker, whitened, grouped table, 21×": [
        grouped_table(128, 64, 24, 5),
        {"sites": "attention", "init": "van_loan_whitened", "right": (2, 16)},
        {"sites": "feed_forward", "init": "van_loan_whitened", "left": (16, 2)},
    ],
    "low rank, whitened, grouped table, 8×": [
        grouped_table(384, 192, 64, 12),
        {"sites": "attention,feed_forward", "init": "svd_whitened", "ratio": 0.125},
    ],
    "three layers": [],
}
KEPT = (0, 2, 5)  # blocks of the truncated student
_STATES = {"of": "blocks", "metric": "relative"}
STAGE_1: dict[str, Any] = {"embedding": {"metric": "relative"}, "hidden": {**_STATES, "weight": 3.0}}
PLAIN: dict[str, Any] = {"teacher": None, "losses": {"cross_entropy": 1}}
STAGE_2: dict[str, Any] = {
    "logits": 1.0,
    "embedding": {"metric": "relative", "weight": 5.0},
    "hidden": {**_STATES, "weight": 50.0},  # less, and a head that is still wrong leads the first epochs
}


@dataclass(frozen=True)
class Row:
    """One line of the table; the rate is that of stage 2."""

    start: str
    stage_one: bool = True
    distilled: bool = True
    rate: float = 1e-3

    @property
    def name(self) -> str:
        """What the table calls it."""
        without = [word for word, there in (("stage 1", self.stage_one), ("a teacher", self.distilled)) if not there]
        return f"{self.start}{', without ' + ' and '.join(without) if without else ''}"


EIGHT = "Kronecker, whitened, grouped table, 8×"
ROWS = [
    Row(EIGHT),
    Row(EIGHT, distilled=False, rate=2e-4),
    Row(EIGHT, stage_one=False),
    Row("Kronecker, 8×"),
    Row("low rank, whitened, grouped table, 8×", rate=5e-4),
    Row("three layers", rate=2e-4),
    Row("Kronecker, whitened, grouped table, 4×"),
    Row("Kronecker, whitened, grouped table, 21×"),
]


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

    def teacher(self) -> dict[str, Any]:
        """Fine-tune the teacher, or read what an earlier call found.

        From RTE alone MiniLM does not learn entailment, so it learns QNLI before (STILTs, Phang et al., 2018).
        """
        tasks = {name: TASKS[name] for name in self.tasks}
        if "rte" in tasks:
            tasks["qnli"] = {"data": str(self._qnli()), "epochs": 3, "batch": 32, "max_length": 128}
        return self._finetune(self._bench("teacher"), tasks, **PLAIN, learning_rate=1e-4)

    def _qnli(self) -> Path:
        """Cut QNLI's dev file, all that is there, in two."""
        folder = self.out / "qnli"
        folder.mkdir(parents=True, exist_ok=True)
        head, *rows = (self.glue / "QNLI" / "dev.tsv").read_text(encoding="utf-8").splitlines()
        for split, some in (("train", rows[:-400]), ("dev", rows[-400:])):
            (folder / f"{split}.tsv").write_text("\n".join([head, *some]) + "\n", encoding="utf-8")
        return folder

    def row(self, row: Row) -> dict[str, Any]:
        """Fine-tune one student on every task, or read what an earlier call found."""
        bench, tasks = self._bench(_slug(row.name)), {name: dict(OF_STUDENTS[name]) for name in self.tasks}
        bench.student = self._student(row)
        losses = _mapped(row.start, STAGE_2) if row.distilled else {"cross_entropy": 1.0}
        for options in tasks.values():
            if "after" in options:
                options |= {"losses": {**losses, "cross_entropy": 1.0}, "learning_rate": row.rate / 2}
        source = str(self.out / "teacher" / "{task}" / "student")
        return self._finetune(bench, tasks, teacher=source, losses=losses, learning_rate=row.rate, dropout=0.0)

    def _finetune(self, bench: Workbench, tasks: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
        step = Finetune(tasks=tasks, data=str(self.glue), epochs=self.epochs, batch=16, seeds=self.seeds, **fields)
        found = {task["task"]: task["rows"] for task in step.run(bench)["tasks"]}
        return {name: next(row for row in found[name] if row["model"] == "student") for name in self.tasks}

    def _student(self, row: Row) -> PreTrainedModel:
        if not row.stage_one:
            return self._start(row.start)
        name = f"{_slug(row.start)}-{self.tokens}"
        folder = self.out / f"stage-1-{name}"
        losses = _mapped(row.start, STAGE_1)
        step = Distill(tokens=self.tokens, window=128, batch=16, learning_rate=1e-3, losses=losses, log_every=20)
        words = hashlib.sha256(self._words.encode()).hexdigest()
        made = json.loads(json.dumps([STARTS[row.start], step.model_dump(mode="json"), words]))
        if not (folder / "report.json").exists():
            start = self._start(row.start)
            bench = self._bench(f"training-{name}", text=True)
            bench.student = start
            report = step.run(bench)
            save(bench.student, folder, tokenizer=bench.tokenizer)
            write_json(folder / "report.json", {**report, "made": made})
        elif read_json(folder / "report.json").get("made") != made:
            raise KronpressError(f"{folder} holds a stage 1 made from other text or otherwise; name another --out")
        return load(folder)

    def _start(self, name: str) -> PreTrainedModel:
        bench = self._bench(f"start-{_slug(name)}", text=True)
        for fields in STARTS[name]:
            Factorize(**fields).run(bench)
        if not STARTS[name]:
            truncate(bench.student, "encoder.layer", KEPT)
        return bench.student

    def _bench(self, name: str, *, text: bool = False) -> Workbench:
        return workbench(MODEL, self._words if text else "", self.out / name)

    @cached_property
    def _words(self) -> str:
        """Return the text of stage 1, and twice the texts of the tasks, which a table for the text should know."""
        lines = []
        for name in TASKS:
            task = TASK_SHELF[name]
            examples = task.read(task.find(str(self.glue)), "train")
            lines += [" ".join(filter(None, (example.first, example.second))) for example in examples]
        random.Random(0).shuffle(lines)
        return "\n".join([*(read_text(str(path)).text for path in self.text), *lines, *lines])


def workbench(name: str, text: str, folder: Path) -> Workbench:
    """Open a dense model as teacher and as the student to be."""
    teacher, tokenizer = load_with_tokenizer(name)
    corpus = Corpus("text", text)
    torch.manual_seed(0)
    return Workbench(copy.deepcopy(teacher.float()), teacher.float(), tokenizer, corpus, corpus, folder)


def truncate(model: PreTrainedModel, blocks: str, kept: Sequence[int]) -> None:
    """Keep these of the model's blocks, whose list has this name, and number them anew for the key-value cache."""
    found = model.get_submodule(blocks)
    some = [found.get_submodule(str(index)) for index in kept]
    for number, block in enumerate(some):
        for module in block.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = number
    model.set_submodule(blocks, nn.ModuleList(some))
    model.config.num_hidden_layers = len(kept)


def _mapped(start: str, losses: Mapping[str, Any]) -> dict[str, Any]:
    """Return the losses, with the truncated student's layers learning from those that they come from."""
    if STARTS[start]:
        return dict(losses)
    return {name: {**fields, "layers": KEPT} if name == "hidden" else fields for name, fields in losses.items()}


def _with_those_before(tasks: Sequence[str]) -> list[str]:
    found = set()
    for wanted in tasks:
        task: str | None = wanted
        while task is not None:
            found.add(task)
            task = OF_STUDENTS[task].get("after")
    return [task for task in TASKS if task in found]


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name).strip("-").lower()


def _line(name: str, found: Mapping[str, Mapping[str, Any]], teacher: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a row in Markdown: scores, their average, and that in percent of the teacher's."""
    scores = [each["score"] for each in found.values()]
    whole = statistics.fmean(teacher[task]["score"] for task in found)
    cells = [f"{found[task]['score']:.1f}" if task in found else "–" for task in TASKS]
    millions = min(each["footprint"]["parameters"] for each in found.values()) / 1e6
    mean = statistics.fmean(scores)
    return f"| {name} | {millions:.2f} M | {' | '.join(cells)} | {mean:.1f} | {100 * mean / whole:.1f} |"


def main() -> None:
    """Run the rows of the table and print it in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--glue", type=Path, required=True)
    parser.add_argument("--text", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/tasks"))
    parser.add_argument("--tokens", type=int, default=1_000_000, help="of stage 1")
    parser.add_argument("--tasks", nargs="*", choices=list(TASKS), default=list(TASKS), help="and those learned before")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=float, default=5.0, help="of students on STS-B; others have their own")
    parser.add_argument("--only", nargs="*", choices=[row.name for row in ROWS], help="rows")
    arguments = vars(parser.parse_args())
    only = arguments.pop("only")
    arguments["tasks"] = _with_those_before(arguments["tasks"])
    study = Study(**arguments)
    keep_freed_memory()
    print(f"| model | parameters | {' | '.join(TASKS)} | average | % of teacher's |")
    print(f"|---|---:|{'---:|' * len(TASKS)}---:|---:|")
    teacher = study.teacher()
    print(_line("teacher", teacher, teacher), flush=True)
    for row in ROWS:
        if not only or row.name in only:
            print(_line(row.name, study.row(row), teacher), flush=True)


if __name__ == "__main__":
    main()
