"""SmolLM2-135M in few bits on five kinds of text: rounded, made up for on text, and trained.

    python -m benchmarks.quantization_text --out runs/quantization-text [--starts healed] [--bits 4] [--fits nearest]

A row is a start (the dense model, it with halved feed-forward blocks, or these healed), bits, and how codes are found:
`nearest`, `compensated` for the inputs of the calibration text, `trained`, which is compensated and then distilled, or
`progressive`, trained in 4 bits before. The table and the JSON file tell the bytes of each file and `general`, the
geometric mean of the perplexities relative to the dense model. What is done is not done again, what was interrupted
goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks import experiment
from benchmarks.measured import measured
from kronpress.checkpoint.files import read_json, write_json
from kronpress.evaluate import TextSet
from kronpress.memory import keep_freed_memory
from kronpress.records import TextSetComparison
from kronpress.run import Recipe, Run, make_recipe

_TABLE = experiment.table("quantization-text-rows")


def beginning(start: str) -> Recipe:
    """Return the recipe of a start, in 32 bits."""
    return make_recipe({"model": _TABLE["model"], "data": _TABLE["data"], "steps": _TABLE["starts"][start]})


def recipe(model: str, bits: str, fit: str) -> Recipe:
    """Return the recipe of a row, which begins from a model."""
    how, steps = _TABLE["fits"][fit], []
    widths = [how["after"], bits] if "after" in how else [bits]
    for width in widths:
        steps.append({"step": "quantize", **_TABLE["bits"][width]["scheme"], "fit": how["fit"]})
        if "tokens" in how:
            rate, tokens = _TABLE["bits"][width]["learning_rate"], how["tokens"] // len(widths)
            training = {"tokens": tokens, "learning_rate": rate, "losses": _TABLE["losses"], "teacher": _TABLE["model"]}
            steps.append({"step": "distill", **training})
    return make_recipe({"model": model, "data": _TABLE["data"], "steps": steps})


def rows(bits: Sequence[str], fits: Sequence[str]) -> list[tuple[str, str]]:
    """Return the rows of a start that are wanted; only fewer bits come after others."""

    def stored(width: str) -> float:
        return float(_TABLE["bits"][width]["scheme"]["weights"]["bits"])

    after = {fit: _TABLE["fits"][fit].get("after") for fit in fits}
    return [row for row in product(bits, fits) if after[row[1]] is None or stored(row[0]) < stored(after[row[1]])]


def main(given: Sequence[str] | None = None) -> None:
    """Run the rows and print them in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/quantization-text"))
    parser.add_argument("--texts", type=Path, default=experiment.FOLDER / "general.yaml")
    parser.add_argument("--starts", nargs="*", choices=list(_TABLE["starts"]), default=list(_TABLE["starts"]))
    parser.add_argument("--bits", nargs="*", choices=list(_TABLE["bits"]), default=list(_TABLE["bits"]))
    parser.add_argument("--fits", nargs="*", choices=list(_TABLE["fits"]), default=list(_TABLE["fits"]))
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/quantization-text.json"))
    arguments = parser.parse_args(given)
    keep_freed_memory()
    texts = TextSet.read(arguments.texts)
    kept: dict[str, Any] = read_json(arguments.json) if arguments.json.exists() else {}

    def tell(start: str, bits: str, fit: str, run: Run, compared: TextSetComparison) -> None:
        size = run.manifest().footprint_after
        assert size is not None and size.bytes_on_disk is not None
        ratios = {text.name: text.perplexity.ratio for text in compared.texts}
        name = ", ".join([start, f"{bits} bits", *([fit] if fit else [])])
        kept[name] = {"bytes": size.bytes_on_disk, "general": compared.general, **ratios}
        write_json(arguments.json, kept)
        print(f"| {start} | {bits} | {fit} | {size.bytes_on_disk / 1e6:.1f} | {compared.general:.3f} |", flush=True)

    print("| start | bits | codes | MB | general |\n|---|---:|---|---:|---:|")
    for start in arguments.starts:
        model = _TABLE["model"]
        if _TABLE["starts"][start]:
            run, compared = measured(beginning(start), texts, folder=arguments.out / start)
            tell(start, "32", "", run, compared)
            model = str(run.checkpoint)
        for bits, fit in rows(arguments.bits, arguments.fits):
            folder = arguments.out / f"{start}-{bits}-{fit}"
            tell(start, bits, fit, *measured(recipe(model, bits, fit), texts, folder=folder, dense=_TABLE["model"]))


if __name__ == "__main__":
    main()
