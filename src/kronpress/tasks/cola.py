"""CoLA: is a sentence grammatical? The Corpus of Linguistic Acceptability, Warstadt et al. (2019), TACL 7."""

from __future__ import annotations

from kronpress.tasks.rows import Columns
from kronpress.tasks.sentences import ClassificationTask
from kronpress.tasks.task import TASKS

COLA = ClassificationTask(
    name="cola",
    metrics=("matthews",),
    max_length=64,
    columns=Columns(first=("sentence",), name=("index", "idx"), bare=("source", "label", "star", "sentence")),
    hub=("nyu-mll/glue", "cola"),
    labels=("unacceptable", "acceptable"),
    spellings={"0": 0, "1": 1},
    submission="CoLA",
)
TASKS.add(COLA.name, COLA)
