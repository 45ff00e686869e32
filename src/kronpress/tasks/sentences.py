"""Tasks on one text or two: a class or a number for each example."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

import numpy as np
from jaxtyping import Float
from transformers import PreTrainedTokenizerBase

from kronpress.errors import KronpressError
from kronpress.tasks.metrics import METRICS
from kronpress.tasks.rows import Columns, Row, read_rows
from kronpress.tasks.task import Feature, Head, Outputs, Task

Numbers: TypeAlias = Float[np.ndarray, " examples"]


@dataclass(frozen=True)
class Example:
    """One or two texts and what is known of them.

    Attributes:
        label: index of the class, or the number; None in a test set.
        name: the row's own name, for submissions.
        group: the part of the data set that is scored on its own as well, if any.
    """

    first: str
    second: str | None
    label: float | None
    name: str
    group: str | None = None


@dataclass(frozen=True, kw_only=True)
class SentenceTask(Task[Example, float]):
    """What tasks on one text or two have in common.

    Attributes:
        columns: where texts and label stand in a row.
        files: name of the file of a split, without its ending, where it is not that of the split.
        hub: the data set and configuration on the hub, if any, for `datasets.load_dataset`.
        trained_on: for tasks without training data: the task whose models answer it, and which of this task's
            classes each of that task's classes stands for.
    """

    columns: Columns
    files: Mapping[str, str] = field(default_factory=dict)
    hub: tuple[str, ...] = ()
    trained_on: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
