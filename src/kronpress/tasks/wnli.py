"""WNLI: whom does a pronoun mean? Winograd schemas, Levesque, Davis & Morgenstern (2012), KR.

Wang et al. (2019), ICLR, made them a question of entailment. Sentences that its dev set shares with the training set
mostly have the opposite label, so that models which fit the training set fall below chance; many papers leave it out.
"""

from __future__ import annotations

from kronpress.tasks.rows import Columns
from kronpress.tasks.sentences import ClassificationTask
from kronpress.tasks.task import TASKS

WNLI = ClassificationTask(
    name="wnli",
    metrics=("accuracy",),
    max_length=128,
    columns=Columns(first=("sentence1",), second=("sentence2",), name=("index", "idx")),
    hub=("nyu-mll/glue", "wnli"),
    labels=("not_entailment", "entailment"),
    spellings={"0": 0, "1": 1},
    submission="WNLI",
)
TASKS.add(WNLI.name, WNLI)
