"""PAWS: do two sentences of nearly the same words mean the same? Zhang, Baldridge & He (2019), NAACL.

This is the part from Wikipedia, with the final labels. Models of MRPC and QQP answer it without training on it.
The F1 is that of the paraphrases, about 44 % of the pairs.
"""

from __future__ import annotations

from kronpress.tasks.rows import Columns
from kronpress.tasks.sentences import ClassificationTask
from kronpress.tasks.task import TASKS

PAWS = ClassificationTask(
    name="paws",
    metrics=("accuracy", "f1"),
    max_length=128,
    columns=Columns(
        first=("sentence1",), second=("sentence2",), name=("id",), bare=("id", "sentence1", "sentence2", "label")
    ),
    hub=("google-research-datasets/paws", "labeled_final"),
    folders=("PAWS-Wiki",),
    trained_on={"mrpc": (0, 1), "qqp": (0, 1)},
    labels=("not_paraphrase", "paraphrase"),
    spellings={"0": 0, "1": 1},
)
TASKS.add(PAWS.name, PAWS)
