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
    """Return `count` indices, epoch after epoch, in batches of alike lengths.

    Pools of fifty batches, or fewer where an epoch has fewer, are sorted by length and their batches shuffled. A pool
    reaches over the end of an epoch into the next one and mixes the two, so that no batch is torn there.
    """
    generator = np.random.default_rng(seed)
    sizes = np.asarray(lengths)
    epochs = [generator.permutation(len(sizes)) for _ in range(math.ceil(count / len(sizes)))]
    order = np.concatenate(epochs)[:count]
    size = batch * max(1, min(_POOL, len(sizes) // batch))
    pools = np.split(order, range(size, count, size))
    return np.concatenate([_alike(pool, sizes[pool], batch, generator) for pool in pools])


def _alike(
    pool: Int[np.ndarray, " n"], lengths: Int[np.ndarray, " n"], batch: int, generator: np.random.Generator
) -> Int[np.ndarray, " n"]:
    """Sort a pool by length, and shuffle its batches; a short one comes last."""
    batches = np.split(pool[np.argsort(lengths, kind="stable")], range(batch, len(pool), batch))
    whole = len(pool) // batch
    places = [*generator.permutation(whole), *range(whole, len(batches))]
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
