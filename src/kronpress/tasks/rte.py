"""RTE: does a text entail a sentence? The challenges RTE 1, 2, 3 and 5, Dagan et al. (2006), MLCW, and others."""

from __future__ import annotations

from kronpress.tasks.rows import Columns
from kronpress.tasks.sentences import ClassificationTask
from kronpress.tasks.task import TASKS

RTE = ClassificationTask(
    name="rte",
    metrics=("accuracy",),
    max_length=256,
    columns=Columns(first=("sentence1",), second=("sentence2",), name=("index", "idx")),
    hub=("nyu-mll/glue", "rte"),
    labels=("entailment", "not_entailment"),
    submission="RTE",
)
TASKS.add(RTE.name, RTE)
