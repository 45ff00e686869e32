"""What compression that reads text and trains nothing loses, on the kinds that it read and on one that it did not.

    python -m benchmarks.calibrated --out runs/calibrated
    python -m benchmarks.calibrated "hidden neurons" "and both" --without novel --out runs/calibrated
    python -m benchmarks.calibrated "hidden neurons" --twice news --out runs/calibrated
    python -m benchmarks.calibrated "hidden neurons" --self-text 65536 --out runs/calibrated

The models of experiments/calibrated-rows.yaml. Measured are `general`, the geometric mean over the kinds of the
perplexity relative to the dense model, and the kinds alone. Rows join benchmarks/results/calibrated.json. What is done
is not done again, what was interrupted goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import experiment
from benchmarks.experiment import slug
from benchmarks.leave_one_out import without
from benchmarks.measured import kept, measured
from kronpress.evaluate import TextSet
from kronpress.memory import keep_freed_memory
from kronpress.run import Recipe, make_recipe

_TABLE = experiment.table("calibrated-rows")
MODELS: dict[str, Any] = _TABLE["models"]


def recipe_of(
    name: str, unread: str | None = None, *, twice: str | None = None, self_text: int | None = None
) -> Recipe:
    """Return the recipe of a model.

    It reads all kinds of text alike, all but one, one of them twice as much as the others, or so many tokens that the
    dense model writes.
    """
    kinds = _TABLE["data"]["train"]
    doubled = {} if twice is None else {twice: {**kinds[twice], "weight": 2}}
    written = {"train": "self", "self_text": {"tokens": self_text}}
    data = {"train": {**kinds, **doubled}} if self_text is None else written
    return without(make_recipe({"model": _TABLE["model"], "data": data, "steps": MODELS[name]}), unread)


def row(recipe: Recipe, texts: TextSet, folder: Path) -> dict[str, Any]:
    """Make a model and measure it."""
    run, compared = measured(recipe, texts, folder=folder)
    size, seconds = run.manifest().footprint_after, sum(step.seconds for step in run.manifest().steps)
    assert size is not None
    made = {"parameters": size.parameters, "seconds": round(seconds), "precision": run.manifest().precision}
    return {**made, "general": compared.general, **{text.name: text.perplexity.ratio for text in compared.texts}}


def main(given: Sequence[str] | None = None) -> None:
    """Make and measure models, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="model", help=f"all by default: {', '.join(MODELS)}")
    read = parser.add_mutually_exclusive_group()
    read.add_argument("--without", choices=list(_TABLE["data"]["train"]), help="a kind of text that is not read")
    read.add_argument("--twice", choices=list(_TABLE["data"]["train"]), help="a kind of which twice as much is read")
    read.add_argument("--self-text", type=int, metavar="TOKENS", help="only text is read that the dense model writes")
    parser.add_argument("--out", type=Path, default=Path("runs/calibrated"))
    parser.add_argument("--texts", type=Path, default=experiment.FOLDER / "general.yaml")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/calibrated.json"))
    arguments = parser.parse_args(given)
    keep_freed_memory()
    texts = TextSet.read(arguments.texts)
    kinds = [text.corpus.name for text in texts.texts]
    print(f"| model | parameters | general | {' | '.join(kinds)} |\n|---|{'---:|' * (2 + len(kinds))}")
    for model in arguments.models or MODELS:
        name = model if arguments.without is None else f"{model}, without {arguments.without}"
        name += "" if arguments.twice is None else f", {arguments.twice} twice"
        name += "" if arguments.self_text is None else f", {arguments.self_text} tokens of self text"
        recipe = recipe_of(model, arguments.without, twice=arguments.twice, self_text=arguments.self_text)
        make = partial(row, recipe, texts, arguments.out / slug(name))
        found = kept(arguments.json, name, make)
        ratios = " | ".join(f"{found[kind]:.3f}" for kind in ("general", *kinds))
        print(f"| {name} | {found['parameters'] / 1e6:.1f} M | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
