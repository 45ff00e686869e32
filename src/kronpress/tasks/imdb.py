"""IMDb: is a whole film review positive? Maas et al. (2011), ACL.

Models of SST-2 answer its test set. It has no dev set: who trains on it makes one of the training set. The original
folder layout, pos/*.txt and neg/*.txt below test or train, is read as well. Reviews keep their `<br />`; 512 tokens cut
the longest.
"""

from __future__ import annotations

from kronpress.tasks.rows import Columns
from kronpress.tasks.sentences import ClassificationTask
from kronpress.tasks.task import TASKS

IMDB = ClassificationTask(
    name="imdb",
    metrics=("accuracy",),
    max_length=512,
    columns=Columns(first=("text", "sentence", "review"), label=("label", "sentiment"), folders=("neg", "pos")),
    hub=("stanfordnlp/imdb",),
    trained_on={"sst-2": (0, 1)},
    scored_split="test",
    labels=("negative", "positive"),
    spellings={"neg": 0, "pos": 1, "0": 0, "1": 1},
)
TASKS.add(IMDB.name, IMDB)
