"""Examples of a task in the order of a training, with what a stored teacher said of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset

from kronpress.tasks import Feature, collate
from kronpress.teacher import StoredTask

TaughtFeature: TypeAlias = tuple[Feature, dict[str, Tensor]]
"""What a model reads, and what a stored teacher said of it: nothing where there is none."""


class TrainingExamples(Dataset[TaughtFeature]):
    """Features in the order of the training, each with what a stored teacher said of it."""

    def __init__(
        self,
        features: Sequence[Feature],
        order: Int[np.ndarray, " count"],
        *,
        teacher: StoredTask | None = None,
    ) -> None:
        self.features, self.order, self.teacher = features, order, teacher

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> TaughtFeature:
        row = int(self.order[index])
        return self.features[row], {} if self.teacher is None else self.teacher.said(row)

    def tokens(self) -> int:
        """Return how many tokens are read in all, without padding."""
        return int(np.asarray([len(feature.ids) for feature in self.features])[self.order].sum())


class Collate:
    """Makes a batch of examples, padded to the longest of them.

    Args:
        pad: id of padding.
        teacher: what was stored of it is a part of the examples.
    """

    def __init__(self, *, pad: int, teacher: StoredTask | None = None) -> None:
        self.pad, self.teacher = pad, teacher

    def __call__(self, examples: Sequence[TaughtFeature]) -> dict[str, Tensor]:
        """Return what `TaskDistillation` is called with."""
        features = [feature for feature, _ in examples]
        batch = collate(features, pad=self.pad)
        batch["labels"] = torch.tensor([feature.labels for feature in features], dtype=torch.float32)
        return batch if self.teacher is None else batch | self.teacher.together([said for _, said in examples])
