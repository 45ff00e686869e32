"""Loops that do the same work, by turns, each in a process of its own; ratios to the first are medians over rounds."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table


def main(
    measure: Callable[[str], dict[str, float]],
    *,
    module: str,
    names: Sequence[str],
    doc: str | None,
    unit: str,
    title: str,
) -> None:
    """Read the command line: print the table of `compare`, or with `--loop NAME` what `measure` gives for that loop."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loop", choices=names)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.loop:
        print(json.dumps(measure(arguments.loop)))
    else:
        compare(module, names, rounds=arguments.rounds, unit=unit, title=title)


def compare(module: str, names: Sequence[str], *, rounds: int, unit: str, title: str) -> None:
    """Print a table of speed and peak memory.

    Args:
        module: `python -m module --loop NAME` prints {"speed": …, "memory": bytes} as its last line.
        names: of the loops; the first is what the others are compared with.
        rounds: how often each is run.
        unit: of the speed.
        title: of the table.
    """
    measured = [{name: _in_a_process(module, name) for name in names} for _ in range(rounds)]
    table = Table("loop", unit, "ratio", "peak memory", "ratio", title=title)
    for name in names:
        cells = []
        for key, scale in (("speed", 1.0), ("memory", 2**30)):
            ratios = [turn[name][key] / turn[names[0]][key] for turn in measured]
            middle = statistics.median(turn[name][key] for turn in measured) / scale
            cells += [f"{middle:.4g}", f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"]
        cells[2] += " GiB"
        table.add_row(name, *cells)
    Console().print(table)


def _in_a_process(module: str, name: str) -> dict[str, float]:
    command = [sys.executable, "-m", module, "--loop", name]
    measurement: dict[str, float] = json.loads(subprocess.check_output(command, text=True).splitlines()[-1])
    return measurement
