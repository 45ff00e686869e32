"""Write the texts of the training sets of tasks, without labels, to one file that a student is distilled on.

    python -m benchmarks.task_text --glue DIR --out runs/tasks.txt

DIR holds CoLA, SST-2, MRPC, STS-B and RTE.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from benchmarks import experiment
from kronpress.checkpoint.files import write_text
from kronpress.finetune import Finetune
from kronpress.tasks import TASKS as TASK_SHELF

TASKS = list(experiment.only(experiment.recipe("tasks-student"), Finetune).tasks)


def lines_of(glue: Path) -> list[str]:
    """Return a line for each training example of each task, in an order by chance."""
    lines = []
    for name in TASKS:
        task = TASK_SHELF[name]
        examples = task.read(task.find(str(glue)), "train")
        lines += [" ".join(filter(None, (example.first, example.second))) for example in examples]
    random.Random(0).shuffle(lines)
    return lines


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--glue", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    write_text(arguments.out, "\n".join(lines_of(arguments.glue)) + "\n")


if __name__ == "__main__":
    main()
