"""What a teacher says of examples, taken once for all the epochs, seeds and models that learn from it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
import torch
from jaxtyping import Float, Int, Int16
from torch import Tensor
from transformers import PreTrainedModel

from kronpress.distill.trace import Reading, Sizes, tracing
from kronpress.tasks import Feature, Outputs, predict


@dataclass(frozen=True)
class Lesson:
    """What a teacher says of one example.

    Attributes:
        outputs: of its head.
        states: its activations, (tokens, activations, dim), in bfloat16.
    """

    outputs: Outputs
    states: Tensor | None = None


@dataclass(frozen=True)
class Lessons:
    """What a teacher says of each feature; activations stay on disk until they are asked for.

    Attributes:
        outputs: of its head, for each feature.
        states: bits of the activations of all features' tokens, one feature after the other.
        starts: where those of each feature begin, and where the last ones end.
    """

    outputs: Sequence[Outputs]
    states: Int16[np.ndarray, "tokens activations dim"] | None
    starts: Int[np.ndarray, " features_and_one"]

    def __getitem__(self, row: int) -> Lesson:
        """Return what is said of one feature."""
        if self.states is None:
            return Lesson(self.outputs[row])
        bits = np.array(self.states[self.starts[row] : self.starts[row + 1]])
        return Lesson(self.outputs[row], torch.from_numpy(bits).view(torch.bfloat16))


def lessons(
    teacher: PreTrainedModel,
    features: Sequence[Feature],
    *,
    folder: Path,
    key: str,
    readings: Collection[Reading] = (),
) -> Lessons:
    """Return what the teacher says of each feature: from `folder`, or computed and written there.

    Args:
        teacher: fine-tuned for the task.
        features: as it reads them.
        folder: that several trainings with the same teacher share.
        key: tells teachers apart, such as the digest of their weights; with another one, other features or other
            readings, all is taken anew.
        readings: the activations to keep beside the outputs of the head.
    """
    known = json.dumps([key, sorted(readings), [feature.ids for feature in features]])
    name = hashlib.sha256(known.encode()).hexdigest()[:32]
    outputs, states = folder / f"{name}.safetensors", folder / f"{name}.npy"
    starts = np.cumsum([0, *(len(feature.ids) for feature in features)])
    if not outputs.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _take(teacher, features, readings, starts=starts, outputs=outputs, states=states)
    return Lessons(_read(outputs, features), np.load(states, mmap_mode="r") if readings else None, starts)


def bytes_of(teacher: PreTrainedModel, features: Sequence[Feature], readings: Collection[Reading]) -> int:
    """Return what the activations of all features take on disk."""
    sizes = Sizes.of(teacher)
    return 2 * sum(len(feature.ids) for feature in features) * sizes.activations(readings) * sizes.dim


def _take(
    teacher: PreTrainedModel,
    features: Sequence[Feature],
    readings: Collection[Reading],
    *,
    starts: Int[np.ndarray, " features_and_one"],
    outputs: Path,
    states: Path,
) -> None:
    """Run the teacher once over all features; the file of outputs, written last, says that all is there."""
    sizes, partial = Sizes.of(teacher), states.with_name(f".{states.name}.partial")
    shape = (int(starts[-1]), sizes.activations(readings), sizes.dim)
    kept = np.lib.format.open_memmap(partial, mode="w+", dtype=np.int16, shape=shape) if readings else None
    with tracing(teacher, readings) as trace:

        def keep(rows: Sequence[int]) -> None:
            if kept is None:
                return
            for row, bits in zip(rows, _bits(trace.taken()), strict=True):
                kept[starts[row] : starts[row + 1]] = bits[: starts[row + 1] - starts[row]]

        found = predict(teacher, features, progress="teacher", after_batch=keep)
    if kept is not None:
        kept.flush()
        os.replace(partial, states)
    partial = outputs.with_name(f".{outputs.name}.partial")
    form = np.asarray([int(found[0].ndim == 2), found[0].shape[0]])  # spans or not; classes
    safetensors.numpy.save_file({"outputs": np.concatenate([each.ravel() for each in found]), "form": form}, partial)
    os.replace(partial, outputs)


def _bits(states: Float[Tensor, "batch tokens activations dim"]) -> Int16[np.ndarray, "batch tokens activations dim"]:
    bits: np.ndarray = states.to(torch.bfloat16).cpu().view(torch.int16).numpy()
    return bits


def _read(path: Path, features: Sequence[Feature]) -> list[Outputs]:
    found = safetensors.numpy.load_file(path)
    spans, classes = (int(number) for number in found["form"])
    sizes = [2 * len(feature.ids) if spans else classes for feature in features]
    flat = np.split(found["outputs"], np.cumsum(sizes)[:-1])
    return [each.reshape(2, -1) if spans else each for each in flat]
