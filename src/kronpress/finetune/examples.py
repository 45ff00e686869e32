"""Examples of a task in the order of a training, with what the teacher said of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from kronpress.tasks import Feature, collate
from kronpress.teacher.example_store import Lesson, Lessons

Pair: TypeAlias = tuple[Feature, Lesson | None]


class Examples(Dataset[Pair]):
    """Features in the order of the training, each with what the teacher says where that was taken beforehand."""

    def __init__(
        self, features: Sequence[Feature], order: Int[np.ndarray, " count"], *, lessons: Lessons | None = None
    ) -> None:
        self.features, self.order, self.lessons = features, order, lessons

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Pair:
        row = int(self.order[index])
        return self.features[row], None if self.lessons is None else self.lessons[row]

    def tokens(self) -> int:
        """Return how many tokens are read in all, without padding."""
        return int(np.asarray([len(feature.ids) for feature in self.features])[self.order].sum())


class Collate:
    """Makes a batch of examples, padded to the longest of them."""

    def __init__(self, *, pad: int) -> None:
        self.pad = pad

    def __call__(self, pairs: Sequence[Pair]) -> dict[str, Tensor]:
        """Return what `TaskDistillation` is called with."""
        features = [feature for feature, _ in pairs]
        batch = collate(features, pad=self.pad)
        batch["labels"] = torch.tensor([feature.labels for feature in features], dtype=torch.float32)
        known = [lesson for _, lesson in pairs if lesson is not None]
        if known:
            outputs = [lesson.outputs for lesson in known]
            longest = max(each.shape[-1] for each in outputs)
            rows = [np.pad(each, [(0, 0)] * (each.ndim - 1) + [(0, longest - each.shape[-1])]) for each in outputs]
            batch["teacher_outputs"] = torch.from_numpy(np.stack(rows))
        if states := [lesson.states for lesson in known if lesson.states is not None]:
            batch["teacher_states"] = pad_sequence(states, batch_first=True)
        return batch
