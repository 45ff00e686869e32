"""Compare students of SmolLM2-135M on tasks of GLUE, as KnGPT2 compares its own with and without its losses.

    python -m benchmarks.decoders --glue DIR --text wikitext-2/train.txt --out runs/decoders

The recipe is experiments/decoders.yaml. Two students of one size, half of the feed-forward blocks (`halve-ffn`) and 19
of the 30 blocks (experiments/decoders-starts.yaml), are healed on the text. Then all are fine-tuned on each task: the
dense model, both students with losses of intermediate layers (ILKD) from it, and the narrower one on labels alone.
Scores are those of the dev sets that chose the epochs. What is done is not done again, what was interrupted goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import experiment
from benchmarks.experiment import workbench
from kronpress.checkpoint import load, save
from kronpress.data import read_text
from kronpress.distill import Distill
from kronpress.finetune import Finetune
from kronpress.memory import keep_freed_memory
from kronpress.run import Recipe

STARTS = experiment.starts(experiment.table("decoders-starts"))
TASKS = list(experiment.only(experiment.recipe("decoders"), Finetune).tasks)


def healed(name: str, out: Path, text: str, tokens: int) -> Path:
    """Compress and heal a student, or find what an earlier call made."""
    folder = out / name
    if not folder.exists():
        recipe = experiment.recipe("decoders", STARTS[name], overrides={"distill.tokens": tokens})
        bench = workbench(recipe.model, text, out / f"healing-{name}")
        experiment.make(recipe, bench)
        experiment.only(recipe, Distill).run(bench)
        save(bench.student, folder, tokenizer=bench.tokenizer)
    return folder


def fine_tuning(arguments: argparse.Namespace, *, fewer: Path) -> Recipe:
    """Return the recipe with what the command line says; `fewer` is the student with fewer blocks."""
    overrides = {
        "finetune.data": str(arguments.glue),
        "finetune.epochs": arguments.epochs,
        "finetune.tasks": arguments.tasks,
        "finetune.baselines.fewer blocks.model": str(fewer),
    }
    return experiment.recipe("decoders", overrides=overrides)


def main() -> None:
    """Make the students, fine-tune all and print the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--glue", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/decoders"))
    parser.add_argument("--tokens", type=int, default=100_000, help="of healing")
    parser.add_argument("--tasks", nargs="*", choices=TASKS, default=TASKS)
    parser.add_argument("--epochs", type=float, default=1.0, help="of the students; the teacher has two")
    arguments = parser.parse_args()
    keep_freed_memory()
    text = read_text(str(arguments.text)).text
    narrower, fewer = (healed(name, arguments.out, text, arguments.tokens) for name in STARTS)
    recipe = fine_tuning(arguments, fewer=fewer)
    bench = workbench(recipe.model, "", arguments.out / "tasks")
    bench.student = load(narrower)
    print("| task | model | parameters | scores |\n|---|---|---:|---:|")
    for task in experiment.only(recipe, Finetune).run(bench).tasks:
        for row in task.models:
            scores = " / ".join(f"{score.value:.1f}" for score in row.metrics.values())
            print(f"| {task.task} | {row.model} | {row.footprint.parameters / 1e6:.1f} M | {scores} |")


if __name__ == "__main__":
    main()
