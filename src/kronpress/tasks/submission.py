"""The files that GLUE's server wants: one answer for each row of a test set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kronpress.checkpoint.files import write_text
from kronpress.errors import KronpressError
from kronpress.tasks.sentences import Example, SentenceTask
from kronpress.tasks.task import Task


def write_submission(
    task: Task[Any, Any], examples: Sequence[Example], answers: Sequence[float], *, folder: Path | str
) -> Path:
    """Write the answers under the name that GLUE expects, as it spells them, and return the path.

    Classes are written as the task's own files write them (by name in RTE, QNLI and MNLI, by number elsewhere),
    numbers clipped to the range of the task, with three decimals. The file is there whole or not at all.

    Raises:
        KronpressError: the task is not part of GLUE, there are not as many answers as examples, or an answer is none
            of the task's.
    """
    if not isinstance(task, SentenceTask) or not task.submission:
        raise KronpressError(f"'{task.name}' is not part of GLUE and takes no submission; score its split 'dev'")
    if len(examples) != len(answers):
        raise KronpressError(f"{len(answers)} answers to {len(examples)} examples of '{task.name}'; give one for each")
    lines = ["index\tprediction"]
    for example, answer in zip(examples, answers, strict=True):
        try:
            lines.append(f"{example.name}\t{task.spell(answer)}")
        except KronpressError as error:
            raise KronpressError(f"example '{example.name}': {error}") from None
    path = Path(folder) / f"{task.submission}.tsv"
    write_text(path, "\n".join(lines) + "\n")
    return path
