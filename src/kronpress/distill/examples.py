"""Examples of a task in the order of a training, with what the teacher said of each."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import safetensors.numpy
import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedModel

from kronpress.tasks import Feature, Outputs, collate, predict

Pair: TypeAlias = tuple[Feature, Outputs | None]


class Examples(Dataset[Pair]):
    """Features in the order of the training, each with the teacher's outputs where these were taken beforehand."""

    def __init__(
        self, features: Sequence[Feature], order: Int[np.ndarray, " count"], *, outputs: Sequence[Outputs] | None = None
    ) -> None:
        self.features, self.order, self.outputs = features, order, outputs

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Pair:
        row = int(self.order[index])
        return self.features[row], None if self.outputs is None else self.outputs[row]

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
        known = [output for _, output in pairs if output is not None]
        if known:
            longest = max(output.shape[-1] for output in known)
            rows = [np.pad(each, [(0, 0)] * (each.ndim - 1) + [(0, longest - each.shape[-1])]) for each in known]
            batch["teacher_outputs"] = torch.from_numpy(np.stack(rows))
        return batch


def teacher_outputs(teacher: PreTrainedModel, features: Sequence[Feature], *, path: Path, key: str) -> list[Outputs]:
    """Return what the teacher's head gives for each feature: from `path`, or computed and written there.

    Args:
        teacher: fine-tuned for the task.
        features: as it reads them.
        path: of a file that several trainings with the same teacher share.
        key: tells teachers apart, such as the digest of their weights; a file with another one, or of other features,
            is written anew.
    """
    digest = hashlib.sha256(json.dumps([key, [feature.ids for feature in features]]).encode()).hexdigest()
    if path.exists():
        known = safetensors.numpy.load_file(path)
        if digest in known:
            cuts = np.cumsum([_size(known[digest], feature) for feature in features])[:-1]
            flat = np.split(known["outputs"], cuts)
            return [each.reshape(2, -1) if known[digest][0] else each for each in flat]
    found = predict(teacher, features, progress="teacher")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    shape = np.asarray([int(found[0].ndim == 2), found[0].shape[0]])  # spans or not; classes
    safetensors.numpy.save_file({"outputs": np.concatenate([each.ravel() for each in found]), digest: shape}, partial)
    os.replace(partial, path)
    return found


def _size(shape: Int[np.ndarray, "2"], feature: Feature) -> int:
    return 2 * len(feature.ids) if shape[0] else int(shape[1])
