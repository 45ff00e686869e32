"""MRPC: do two sentences from the news say the same? Dolan & Brockett (2005), IWP."""

from __future__ import annotations

from kronpress.tasks.rows import Columns
from kronpress.tasks.sentences import ClassificationTask
from kronpress.tasks.task import TASKS

MRPC = ClassificationTask(
    name="mrpc",
    metrics=("f1", "accuracy"),
    max_length=128,
    columns=Columns(
        first=("#1 String", "sentence1"),
        second=("#2 String", "sentence2"),
        label=("Quality", "label"),
        name=("index", "idx"),
    ),
    hub=("nyu-mll/glue", "mrpc"),
    labels=("not_equivalent", "equivalent"),
    spellings={"0": 0, "1": 1},
    submission="MRPC",
)
TASKS.add(MRPC.name, MRPC)
