"""Features as batches: texts of about the same length together, so that little of a batch is padding."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from kronpress.tasks.task import Feature

_POOL = 50  # batches that are sorted by length together: enough for alike lengths, few enough to stay well mixed


def shuffled(lengths: Sequence[int], *, batch: int, count: int, seed: int) -> Int[np.ndarray, " count"]:
    """Return `count` indices, epoch after epoch, in batches of alike lengths; each epoch has every index once.

    An epoch is shuffled, sorted by length within pools of fifty batches, and its batches are shuffled again.
    """
    generator = np.random.default_rng(seed)
    sizes = np.asarray(lengths)
    epochs = [_epoch(sizes, batch, generator) for _ in range(math.ceil(count / len(sizes)))]
    return np.concatenate(epochs)[:count]


def _epoch(lengths: Int[np.ndarray, " n"], batch: int, generator: np.random.Generator) -> Int[np.ndarray, " n"]:
    order = generator.permutation(len(lengths))
    pools = [order[start : start + _POOL * batch] for start in range(0, len(order), _POOL * batch)]
    alike = np.concatenate([pool[np.argsort(lengths[pool], kind="stable")] for pool in pools])
    batches = [alike[start : start + batch] for start in range(0, len(alike), batch)]
    whole = len(alike) // batch
    places = [*generator.permutation(whole), *range(whole, len(batches))]  # a short one stays last: none is torn
    return np.concatenate([batches[place] for place in places])


def by_length(lengths: Sequence[int], *, tokens: int) -> Iterator[list[int]]:
    """Yield all indices, the longest first, in batches of about `tokens` tokens with their padding."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    start = 0
    while start < len(order):
        size = max(1, tokens // max(1, lengths[order[start]]))
        yield order[start : start + size]
        start += size


def collate(features: Sequence[Feature], *, pad: int) -> dict[str, Tensor]:
    """Return `input_ids`, `attention_mask` and, where known, `token_type_ids`, padded on the right."""
    longest = max(len(feature.ids) for feature in features)
    inputs = {
        "input_ids": [[*feature.ids, *[pad] * (longest - len(feature.ids))] for feature in features],
        "attention_mask": [[1] * len(feature.ids) + [0] * (longest - len(feature.ids)) for feature in features],
    }
    if all(feature.types is not None for feature in features):
        types = [feature.types or () for feature in features]
        inputs["token_type_ids"] = [[*each, *[0] * (longest - len(each))] for each in types]
    return {name: torch.tensor(rows) for name, rows in inputs.items()}
