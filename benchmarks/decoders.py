"""Compare students of SmolLM2-135M on tasks of GLUE, as KnGPT2 compares its own with and without its losses.

    python -m benchmarks.decoders --glue DIR --text wikitext-2/train.txt --out runs/decoders

Two students of one size, half of the feed-forward blocks (`halve-ffn`) and 19 of the 30 blocks, are healed on the text.
Then all are fine-tuned on each task: the dense model, both students with losses of intermediate layers (ILKD) from it,
and the narrower one on labels alone. Scores are those of the dev sets that chose the epochs. What is done is not done
again, what was interrupted goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.tasks import truncate, workbench
from kronpress.checkpoint import load, save
from kronpress.data import read_text
from kronpress.distill import Distill
from kronpress.factorize import Factorize
from kronpress.finetune import Finetune
from kronpress.memory import keep_freed_memory

MODEL = "bundled:smollm2-135m"
TASKS = ("mrpc", "rte", "cola")
KEPT = tuple(round(index * 29 / 18) for index in range(19))
HEALING = {"logits": 0.5, "cross_entropy": 0.5}


def ilkd(**hidden: Any) -> dict[str, Any]:
    """Return losses of labels, scores and blocks."""
    return {"cross_entropy": 1, "logits": 1, "hidden": {"of": "blocks", "metric": "relative", "weight": 10, **hidden}}


def healed(name: str, out: Path, text: str, tokens: int) -> Path:
    """Compress and heal a student, or find what an earlier call made."""
    folder = out / name
    if not folder.exists():
        bench = workbench(MODEL, text, out / f"healing-{name}")
        if name == "narrower":
            form = {"name": "calibrated_pruning", "keep": 0.5, "form": "narrow"}
            Factorize(sites="feed_forward", init=form).run(bench)
        else:
            truncate(bench.student, "model.layers", KEPT)
        Distill(tokens=tokens, losses=HEALING).run(bench)
        save(bench.student, folder, tokenizer=bench.tokenizer)
    return folder


def main() -> None:
    """Make the students, fine-tune all and print the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--glue", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/decoders"))
    parser.add_argument("--tokens", type=int, default=100_000, help="of healing")
    parser.add_argument("--tasks", nargs="*", choices=TASKS, default=list(TASKS))
    parser.add_argument("--epochs", type=float, default=1.0, help="of the students; the teacher has two")
    given = parser.parse_args()
    keep_freed_memory()
    text = read_text(str(given.text)).text
    narrower, fewer = (healed(name, given.out, text, given.tokens) for name in ("narrower", "fewer-blocks"))
    bench = workbench(MODEL, "", given.out / "tasks")
    bench.student = load(narrower)
    step = Finetune(
        tasks=given.tasks,
        data=str(given.glue),
        epochs=given.epochs,
        losses=ilkd(),
        teacher={"learning_rate": 5e-5, "epochs": 2},
        baselines={
            "labels alone": {},
            "fewer blocks": {"model": str(fewer), "losses": ilkd(layers=KEPT)},
        },
        cache_max_bytes=16 * 2**30,
    )
    print("| task | model | parameters | scores |\n|---|---|---:|---:|")
    for task in step.run(bench)["tasks"]:
        for row in task["rows"]:
            scores = " / ".join(f"{value:.1f}" for value in row["scores"].values())
            print(f"| {task['task']} | {row['model']} | {row['footprint']['parameters'] / 1e6:.1f} M | {scores} |")


if __name__ == "__main__":
    main()
