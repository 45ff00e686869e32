"""SmolLM2-135M in few bits on five kinds of text: rounded, made up for on text, and healed.

    python -m benchmarks.quantization_text --out runs/quantization-text [--starts halved] [--bits 4] [--fits nearest]

A row is a start (dense, or with halved feed-forward blocks), bits, and how codes are found: `nearest`, `compensated`
for the inputs of the calibration text, or `healed`, compensated and then distilled. The table and the JSON file tell
the bytes of each file and `general`, the geometric mean of the perplexities relative to the dense model. What is done
is not done again, what was interrupted goes on.
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
from kronpress.run import Recipe, make_recipe

_TABLE = experiment.table("quantization-text-rows")
FULL = "32"


def recipe(start: str, bits: str, fit: str) -> Recipe:
    """Return the recipe of a row; that of 32 bits has no quantize step."""
    steps = list(_TABLE["starts"][start])
    if bits != FULL:
        steps.append({"step": "quantize", **_TABLE["bits"][bits], "fit": fit if fit == "nearest" else "compensated"})
    steps += _TABLE["fits"][fit]
    return make_recipe({"data": _TABLE["data"], "steps": steps})


def rows(starts: Sequence[str], bits: Sequence[str], fits: Sequence[str]) -> list[tuple[str, str, str]]:
    """Return the rows that are wanted; in 32 bits there is nothing to be found, but a start that can be healed."""
    wanted = product(starts, bits, fits)
    return [row for row in wanted if row[1] != FULL or (row[0] != "dense" and row[2] != "compensated")]


def main(given: Sequence[str] | None = None) -> None:
    """Run the rows and print them in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/quantization-text"))
    parser.add_argument("--texts", type=Path, default=experiment.FOLDER / "general.yaml")
    parser.add_argument("--starts", nargs="*", choices=list(_TABLE["starts"]), default=list(_TABLE["starts"]))
    parser.add_argument("--bits", nargs="*", choices=[FULL, *_TABLE["bits"]], default=[FULL, *_TABLE["bits"]])
    parser.add_argument("--fits", nargs="*", choices=list(_TABLE["fits"]), default=list(_TABLE["fits"]))
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/quantization-text.json"))
    arguments = parser.parse_args(given)
    keep_freed_memory()
    texts = TextSet.read(arguments.texts)
    kept: dict[str, Any] = read_json(arguments.json) if arguments.json.exists() else {}
    print("| start | bits | codes | MB | general |\n|---|---:|---|---:|---:|")
    for start, bits, fit in rows(arguments.starts, arguments.bits, arguments.fits):
        run, compared = measured(recipe(start, bits, fit), texts, folder=arguments.out / f"{start}-{bits}-{fit}")
        size = run.manifest().footprint_after
        assert size is not None and size.bytes_on_disk is not None
        ratios = {text.name: text.perplexity.ratio for text in compared.texts}
        kept[f"{start}, {bits} bits, {fit}"] = {"bytes": size.bytes_on_disk, "general": compared.general, **ratios}
        write_json(arguments.json, kept)
        print(f"| {start} | {bits} | {fit} | {size.bytes_on_disk / 1e6:.1f} | {compared.general:.3f} |", flush=True)


if __name__ == "__main__":
    main()
