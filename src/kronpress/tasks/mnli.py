"""MNLI: does a premise entail a hypothesis, contradict it, or neither? Williams, Nangia & Bowman (2018), NAACL.

There are two development and test sets: matched, of the genres of the training data, and mismatched, of others. The
first are the task `mnli`, the second `mnli-mm`, which models of `mnli` answer.
"""

from __future__ import annotations

from dataclasses import replace

from kronpress.tasks.rows import Columns
from kronpress.tasks.sentences import ClassificationTask
from kronpress.tasks.task import TASKS

MNLI = ClassificationTask(
    name="mnli",
    metrics=("accuracy",),
    max_length=128,
    columns=Columns(
        first=("sentence1", "premise"),
        second=("sentence2", "hypothesis"),
        label=("gold_label", "label"),
        name=("index", "idx", "pairID"),
    ),
    files={"train": ("train",), "dev": ("dev_matched", "validation_matched"), "test": ("test_matched",)},
    hub=("nyu-mll/glue", "mnli"),
    labels=("entailment", "neutral", "contradiction"),
    submission="MNLI-m",
)
TASKS.add(MNLI.name, MNLI)

MNLI_MISMATCHED = replace(
    MNLI,
    name="mnli-mm",
    files={"dev": ("dev_mismatched", "validation_mismatched"), "test": ("test_mismatched",)},
    trained_on={"mnli": (0, 1, 2)},
    submission="MNLI-mm",
    folders=("MNLI",),
)
TASKS.add(MNLI_MISMATCHED.name, MNLI_MISMATCHED)
