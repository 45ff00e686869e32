"""Compare initializations at half the feed-forward parameters of SmolLM2-135M, before and after equal training.

    python -m benchmarks.initializations --data DIR --out runs/initializations --tokens 61440 --windows 64

DIR holds WikiText-2's train.txt and valid.txt. Each row is a run of experiments/initializations.yaml from a start of
experiments/initializations-starts.yaml; finished ones are not run again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import experiment
from benchmarks.experiment import Start
from kronpress.run import Recipe, execute

STARTS = experiment.starts(experiment.table("initializations-starts"))


def recipe(start: Start, arguments: argparse.Namespace) -> Recipe:
    """Return the recipe: start, measure, train, measure; without the last two where nothing is trained."""
    overrides = {
        "data.train": str(arguments.data / "train.txt"),
        "data.held_out": str(arguments.data / "valid.txt"),
        "evaluate.max_windows": arguments.windows,
        "distill.tokens": arguments.tokens or 1,
        "distill.losses": {"logits": 1 - arguments.cross_entropy, "cross_entropy": arguments.cross_entropy},
    }
    whole = experiment.recipe("initializations", start, overrides=overrides)
    return whole if arguments.tokens else whole.model_copy(update={"steps": whole.steps[:-2]})


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
        perplexity = {row.stage: f"{row.perplexity:.4g} ({row.ratio:.3f}×)" for row in summary.perplexity}
        size = f"{summary.footprint_after['parameters'].value / 1e6:.2f} M"
        rows.append(f"| {name} | {size} | {perplexity.get('before', '')} | {perplexity.get('after', '')} |")
    print("\n".join(["| start | parameters | before training | after |", "|---|---:|---:|---:|", *rows]))


if __name__ == "__main__":
    main()
