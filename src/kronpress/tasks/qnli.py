"""QNLI: does a sentence hold the answer to a question? Wang et al. (2019), ICLR, made from SQuAD."""

from __future__ import annotations

from kronpress.tasks.rows import Columns
from kronpress.tasks.sentences import ClassificationTask
from kronpress.tasks.task import TASKS

QNLI = ClassificationTask(
    name="qnli",
    metrics=("accuracy",),
    max_length=256,
    columns=Columns(first=("question",), second=("sentence",), name=("index", "idx")),
    hub=("nyu-mll/glue", "qnli"),
    labels=("entailment", "not_entailment"),
    submission="QNLI",
)
TASKS.add(QNLI.name, QNLI)
