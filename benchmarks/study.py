"""What holds of the papers' claims: error and quality of every start, shape, permutation and choice of blocks.

    python -m benchmarks.study --data DIR --out runs/study --model bundled:smollm2-135m --windows 8

The recipe is experiments/study.yaml with the rows of experiments/study-rows.yaml. DIR holds WikiText-2's train.txt and
valid.txt. Nothing is trained. A row that is in the output file already is not measured again, so an interrupted study
goes on.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import experiment
from benchmarks.experiment import Start
from kronpress.checkpoint import load_with_tokenizer
from kronpress.data import read_text
from kronpress.evaluate import Evaluate, footprint
from kronpress.memory import keep_freed_memory
from kronpress.step import Workbench


@dataclass(frozen=True)
class Row:
    """One line of the study: a question, what is varied, and how the student begins."""

    question: str
    name: str
    start: Start


ROWS = [
    Row(question, name, start)
    for question, rows in experiment.table("study-rows").items()
    for name, start in experiment.starts(rows).items()
]


def measure(row: Row, dense: Workbench, *, windows: int) -> dict[str, Any]:
    """Factorize a copy of the dense model and compare it with the original."""
    bench = copy.copy(dense)
    bench.student = copy.deepcopy(dense.teacher)
    recipe = experiment.recipe("study", row.start, overrides={"evaluate.max_windows": windows})
    records = experiment.make(recipe, bench)
    measured = experiment.only(recipe, Evaluate).run(bench)
    errors = [module.relative_error for record in records for module in record.modules]
    quality = measured.perplexity[0].ratio if measured.fidelity is None else measured.fidelity.cosine
    return {
        "question": row.question,
        "name": row.name,
        "parameters": footprint(bench.student).parameters,
        "error": sum(errors) / len(errors),
        "quality": quality,
    }


def workbench(arguments: argparse.Namespace) -> Workbench:
    """Open the model and the texts."""
    model, tokenizer = load_with_tokenizer(arguments.model)
    train, held_out = (read_text(str(arguments.data / f"{name}.txt")) for name in ("train", "valid"))
    folder = Path(tempfile.mkdtemp())
    return Workbench(model, model, tokenizer, train, held_out, folder, measurements=folder / "teacher.json")


def table(rows: list[dict[str, Any]], *, quality: str) -> str:
    """Return a Markdown table."""
    lines = [f"| question | | parameters | relative error | {quality} |", "|---|---|---:|---:|---:|"]
    for row in rows:
        size = f"{row['parameters'] / 1e6:.2f} M"
        lines.append(f"| {row['question']} | {row['name']} | {size} | {row['error']:.4f} | {row['quality']:.4g} |")
    return "\n".join(lines)


def main() -> None:
    """Measure every row that is not in the output file yet, and print them all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/study"))
    parser.add_argument("--model", default="bundled:smollm2-135m")
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--only", nargs="*", default=sorted({row.question for row in ROWS}))
    arguments = parser.parse_args()
    keep_freed_memory()
    file = arguments.out / f"{arguments.model.replace(':', '-').replace('/', '-')}-{arguments.windows}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    done = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    dense = workbench(arguments)
    for row in ROWS:
        measured = {(line["question"], line["name"]) for line in done}
        if row.question in arguments.only and (row.question, row.name) not in measured:
            done.append(measure(row, dense, windows=arguments.windows))
            with file.open("a") as stream:
                stream.write(json.dumps(done[-1]) + "\n")
    causal = bool(dense.teacher.can_generate())
    print(table(done, quality="perplexity ratio" if causal else "cosine of the outputs"))


if __name__ == "__main__":
    main()
