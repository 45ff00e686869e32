"""Where the data of several tasks are, and what one task may know of another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kronpress.data import user_path
from kronpress.errors import KronpressError
from kronpress.finetune.data import TaskData
from kronpress.finetune.held_out import divided
from kronpress.finetune.options import SelectOn, TaskOptions
from kronpress.tasks import TASKS, ClassificationTask, Example, SentenceTask, without


@dataclass(frozen=True)
class Sources:
    """Where the data of a step's tasks are.

    Attributes:
        tasks: what the step does differently for each.
        data: where the data are of tasks that do not say so.
        also: other data that the models of the tasks answer, and where they are.
        select_on: what selects epochs and seeds.
        seed: of the draw of what is held out of the training sets.
    """

    tasks: Mapping[str, TaskOptions]
    data: str | None
    also: Mapping[str, str]
    select_on: SelectOn = "dev"
    seed: int = 0

    def read(self, name: str, *, max_length: int | None = None) -> TaskData:
        """Read all that models of one task are trained and scored on.

        Raises:
            KronpressError: what is missing or malformed, or would be training and dev set at once.
        """
        task, dev = TASKS[name], self._split(name, "dev")
        train, held_out = self._train(name)
        also = {other: self._elsewhere(other) for other in self.also if name in answered_by(other)}
        texts = self._unlabeled(name, train)
        if not isinstance(task, SentenceTask):
            return TaskData(task, train, dev, also, max_length, held_out=held_out)
        others = [other for other in self._later(name) if isinstance(TASKS[other], SentenceTask)]
        later = [example for other in others for example in [*self._split(other, "dev"), *self._train(other)[1]]]
        unseen = [*dev, *held_out, *later]
        new, selecting, new_texts = without(train, later), without(held_out, later), without(texts, unseen)
        if not new or len(selecting) < min(1, len(held_out)):
            raise KronpressError(f"all examples of '{name}' stand in the dev sets of {', '.join(others)}; check data")
        left_out = len(train) + len(held_out) + len(texts) - len(new) - len(selecting) - len(new_texts)
        return TaskData(task, new, dev, also, max_length, new_texts, left_out, selecting, unseen)

    def _train(self, name: str) -> tuple[list[Any], list[Any]]:
        """Return the examples to train on, and those that are held out to select on."""
        examples = self._split(name, "train")
        return divided(TASKS[name], examples, seed=self.seed) if self.select_on == "train" else (examples, [])

    def _split(self, name: str, split: str) -> list[Any]:
        source = self.tasks[name].data or self.data
        if source is None:
            raise KronpressError(f"no data for '{name}'; name a folder or `hub:` under data")
        task, place = TASKS[name], user_path(source)
        if place.is_file():
            raise KronpressError(f"'{source}' would be training and dev set of '{name}' at once; name a folder of both")
        folder, sharing = task.find(source), [other for other, options in self.tasks.items() if options.data is None]
        if folder == source and place.is_dir() and name in sharing and len(sharing) > 1 and task.head != "spans":
            raise KronpressError(
                f"'{source}' has no folder for '{name}', and so {', '.join(sharing)} would read the same; make one, or "
                f"name that of '{name}' under its own data"
            )
        return list(task.read(folder, split))

    def _elsewhere(self, name: str) -> list[Any]:
        task = TASKS[name]
        assert isinstance(task, SentenceTask)
        return task.read(task.find(self.also[name]), task.scored_split)

    def _later(self, name: str) -> list[str]:
        """Return the tasks whose models begin, at once or by others between, with those of this one."""
        nearest = [other for other, options in self.tasks.items() if options.after == name]
        return [*nearest, *(later for other in nearest for later in self._later(other))]

    def _unlabeled(self, name: str, train: Sequence[Any]) -> list[Example]:
        """Read the texts without labels for a task, which must be one or two to a row as its own are."""
        unlabeled: list[Example] = []
        for other in self.tasks[name].unlabeled:
            task = TASKS[other]
            if not isinstance(task, SentenceTask) or not isinstance(TASKS[name], SentenceTask) or self.data is None:
                raise KronpressError(
                    f"unlabeled: '{name}' and '{other}' must be tasks on texts, both in the folder data"
                )
            texts = task.read(task.find(self.data), "train")
            if (texts[0].second is None) != (train[0].second is None):
                raise KronpressError(f"unlabeled: '{name}' and '{other}' have not as many texts to a row; name another")
            unlabeled += [replace(text, label=None) for text in texts]
        return unlabeled


def answered_by(name: str) -> list[str]:
    """Return the tasks whose models answer the task `name`."""
    task = TASKS[name]
    return list(task.trained_on) if isinstance(task, ClassificationTask) else []
