"""IMDb: is a whole film review positive? Maas et al. (2011), ACL.

There is no dev set: where a folder has none, the split `dev` is the test set. The original folder layout, pos/*.txt and
neg/*.txt below test or train, is read as well. Reviews keep their `<br />`; 512 tokens cut the longest.
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
    files={"train": ("train",), "dev": ("dev", "validation", "test"), "test": ("test",)},
    hub=("stanfordnlp/imdb",),
    trained_on={"sst-2": (0, 1)},
    labels=("negative", "positive"),
    spellings={"neg": 0, "pos": 1, "0": 0, "1": 1},
)
TASKS.add(IMDB.name, IMDB)
