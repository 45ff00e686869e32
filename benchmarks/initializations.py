"""Compare initializations at half the feed-forward parameters of SmolLM2-135M, before and after equal training.

    python -m benchmarks.initializations --data DIR --out runs/initializations --tokens 61440 --windows 64

DIR holds WikiText-2's train.txt and valid.txt. Each row is a recipe run; finished ones are not run again.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from kronpress.run.execution import execute
from kronpress.run.recipe import Recipe, read_recipe

TRAIN = {"step": "distill", "log_every": 10}
CALIBRATED = {"name": "calibrated_pruning", "keep": 0.5}
STARTS: dict[str, dict[str, Any] | None] = {
    "calibrated pruning, narrow": {"init": CALIBRATED},
    "calibrated pruning, Kronecker": {"init": {**CALIBRATED, "form": "kronecker"}},
    "van_loan": {"init": "van_loan", "right": [1, 2]},
    "van_loan_normalized": {"init": "van_loan_normalized", "right": [1, 2]},
    "pruning": {"init": "pruning", "right": [1, 2]},
    "svd": {"init": "svd", "ratio": 0.5},
    "dense, trained alike": None,
}


def recipe(start: dict[str, Any] | None, arguments: argparse.Namespace) -> Recipe:
    """Return the recipe: start, measure, train, measure."""
    measure = {"step": "evaluate", "max_windows": arguments.windows}
    steps: list[dict[str, Any]] = [] if start is None else [{"step": "factorize", "sites": "feed_forward", **start}]
    steps.append({**measure, "stage": "before"})
    if arguments.tokens:
        losses = {"logits": 1 - arguments.cross_entropy, "cross_entropy": arguments.cross_entropy}
        steps += [{**TRAIN, "tokens": arguments.tokens, "losses": losses}, {**measure, "stage": "after"}]
    data = {"train": str(arguments.data / "train.txt"), "held_out": str(arguments.data / "valid.txt")}
    return read_recipe("halve-ffn", fields={"steps": steps, "data": data})


def main() -> None:
    """Run every start and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/initializations"))
    parser.add_argument("--tokens", type=int, default=61440, help="training tokens; 0 for none")
    parser.add_argument("--cross-entropy", type=float, default=0.5, help="share of cross-entropy, the rest is KL")
    parser.add_argument("--windows", type=int, default=64)
    parser.add_argument("--only", nargs="*", default=list(STARTS))
    arguments = parser.parse_args()
    rows = []
    for name in arguments.only:
        folder = (
            arguments.out / f"{name.replace(', ', '-').replace(' ', '-')}-{arguments.tokens}-{arguments.cross_entropy}"
        )
        summary = execute(recipe(STARTS[name], arguments), folder, resume=True).summary()
        found = {row.stage: f"{row.perplexity:.4g} ({row.ratio:.3f}×)" for row in summary.perplexity}
        size = f"{summary.footprint_after['parameters'].value / 1e6:.2f} M"
        rows.append(f"| {name} | {size} | {found.get('before', '')} | {found.get('after', '')} |")
    print("\n".join(["| start | parameters | before training | after |", "|---|---:|---:|---:|", *rows]))


if __name__ == "__main__":
    main()
