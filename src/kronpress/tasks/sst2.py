"""SST-2: is a phrase of a film review positive? The Stanford Sentiment Treebank, Socher et al. (2013), EMNLP."""

from __future__ import annotations

from kronpress.tasks.rows import Columns
from kronpress.tasks.sentences import ClassificationTask
from kronpress.tasks.task import TASKS

SST2 = ClassificationTask(
    name="sst-2",
    metrics=("accuracy",),
    max_length=64,
    columns=Columns(first=("sentence",)),
    hub=("nyu-mll/glue", "sst2"),
    labels=("negative", "positive"),
    spellings={"0": 0, "1": 1},
    submission="SST-2",
)
TASKS.add(SST2.name, SST2)
