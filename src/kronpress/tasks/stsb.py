"""STS-B: how alike in meaning are two sentences, from 0 to 5? The STS benchmark, Cer et al. (2017), SemEval."""

from __future__ import annotations

from kronpress.tasks.rows import Columns
from kronpress.tasks.sentences import RegressionTask
from kronpress.tasks.task import TASKS

STSB = RegressionTask(
    name="sts-b",
    metrics=("pearson", "spearman"),
    max_length=128,
    columns=Columns(first=("sentence1",), second=("sentence2",), label=("score", "label"), name=("index", "idx")),
    hub=("nyu-mll/glue", "stsb"),
    low=0,
    high=5,
    submission="STS-B",
)
TASKS.add(STSB.name, STSB)
