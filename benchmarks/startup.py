"""Compare the CPU time of whole processes with that of the imports which they cannot do without.

    python -m benchmarks.startup

Medians of five rounds, the processes by turns, after a round that does not count.
A ratio is to the last row without one.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys

from rich.console import Console
from rich.table import Table

ROUNDS = 5
LIGHT, LIBRARIES = "import typer, rich", "import torch, transformers"
MISTAKES = ("run --nope", "compress x --bad", "nope", "compress")
COMMANDS = ("--help", "--version", "run --help", "evaluate --help", *MISTAKES, "recipes")
ENTRY = "import sys; from kronpress.cli import main; sys.argv[0] = 'kronpress'; main()"


def main() -> None:
    """Print the table."""
    groups = {
        LIGHT: {LIGHT: [LIGHT], **{f"kronpress {words}": [ENTRY, *words.split()] for words in COMMANDS}},
        LIBRARIES: {LIBRARIES: [LIBRARIES], "import kronpress": ["import kronpress"]},
    }
    table = Table("process", "CPU seconds", "ratio", title="start")
    for reference, rows in groups.items():
        seconds = [{name: cpu_seconds(words) for name, words in rows.items()} for _ in range(1 + ROUNDS)][1:]
        medians = {name: statistics.median(turn[name] for turn in seconds) for name in rows}
        for name, median in medians.items():
            ratio = "" if name == reference else f"{median / medians[reference]:.2f}"
            table.add_row(name, f"{median:.3f}", ratio)
    Console().print(table)


def cpu_seconds(words: list[str]) -> float:
    """Return user and system time of a Python process that runs `words[0]` with the other words as arguments."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", *words], capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
