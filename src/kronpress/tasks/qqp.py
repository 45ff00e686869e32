"""QQP: do two questions ask the same? Quora's question pairs, Iyer, Dandekar & Csernai (2017), quora.com."""

from __future__ import annotations

from kronpress.tasks.rows import Columns
from kronpress.tasks.sentences import ClassificationTask
from kronpress.tasks.task import TASKS

QQP = ClassificationTask(
    name="qqp",
    metrics=("f1", "accuracy"),
    max_length=128,
    columns=Columns(
        first=("question1",),
        second=("question2",),
        label=("is_duplicate", "label"),
        name=("id", "idx"),
        ragged=True,  # a few rows of GLUE's files
    ),
    hub=("nyu-mll/glue", "qqp"),
    labels=("not_duplicate", "duplicate"),
    spellings={"0": 0, "1": 1},
    submission="QQP",
)
TASKS.add(QQP.name, QQP)
