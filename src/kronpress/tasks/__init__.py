"""Tasks: their data, what a model reads of it, and how its answers are scored."""

from kronpress.tasks.batches import collate, shuffled
from kronpress.tasks.cola import COLA
from kronpress.tasks.hans import HANS
from kronpress.tasks.heads import is_headed, pad, take_head, with_head
from kronpress.tasks.imdb import IMDB
from kronpress.tasks.metrics import METRICS
from kronpress.tasks.mnli import MNLI, MNLI_MISMATCHED
from kronpress.tasks.mrpc import MRPC
from kronpress.tasks.overlap import without
from kronpress.tasks.paws import PAWS
from kronpress.tasks.predict import outputs_of, predict
from kronpress.tasks.qnli import QNLI
from kronpress.tasks.qqp import QQP
from kronpress.tasks.rte import RTE
from kronpress.tasks.sentences import ClassificationTask, Example, RegressionTask, SentenceTask
from kronpress.tasks.squad import SQUAD, SQUAD_2, SquadTask
from kronpress.tasks.sst2 import SST2
from kronpress.tasks.stsb import STSB
from kronpress.tasks.submission import write_submission
from kronpress.tasks.task import TASKS, DivergedError, Feature, Head, Outputs, Task
from kronpress.tasks.wnli import WNLI

__all__ = [
    "COLA",
    "HANS",
    "IMDB",
    "METRICS",
    "MNLI",
    "MNLI_MISMATCHED",
    "MRPC",
    "PAWS",
    "QNLI",
    "QQP",
    "RTE",
    "SQUAD",
    "SQUAD_2",
    "SST2",
    "STSB",
    "TASKS",
    "WNLI",
    "ClassificationTask",
    "DivergedError",
    "Example",
    "Feature",
    "Head",
    "Outputs",
    "RegressionTask",
    "SentenceTask",
    "SquadTask",
    "Task",
    "collate",
    "is_headed",
    "outputs_of",
    "pad",
    "predict",
    "shuffled",
    "take_head",
    "with_head",
    "without",
    "write_submission",
]
