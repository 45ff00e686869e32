"""HANS: entailment where shared words, subsequences and constituents mislead. McCoy, Pavlick & Linzen (2019), ACL.

It has no training data: models of RTE answer it as they are; those of MNLI by their likeliest class, where neutral and
contradiction both stand for non-entailment. Half of the pairs are entailed, so chance is 50 %, also in each heuristic.
"""

from __future__ import annotations

from kronpress.tasks.rows import Columns
from kronpress.tasks.sentences import ClassificationTask
from kronpress.tasks.task import TASKS

HANS = ClassificationTask(
    name="hans",
    metrics=("accuracy",),
    max_length=64,
    columns=Columns(
        first=("sentence1", "premise"),
        second=("sentence2", "hypothesis"),
        label=("gold_label", "label"),
        name=("pairID",),
        group=("heuristic",),
    ),
    files={"dev": ("heuristics_evaluation_set", "hans_eval_restored", "dev", "validation")},
    trained_on={"rte": (0, 1), "mnli": (0, 1, 1)},
    labels=("entailment", "not_entailment"),
    spellings={"non-entailment": 1},
)
TASKS.add(HANS.name, HANS)
