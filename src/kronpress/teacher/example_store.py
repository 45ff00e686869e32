"""What a teacher says of examples, taken once for all the epochs, seeds and models that learn from it."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedModel

from kronpress.activations.trace import Reading, Sizes, tracing
from kronpress.checkpoint import files
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
        states: the file with the activations of all features' tokens, one feature after the other, if they are kept.
        shape: of what a token has there, (activations, dim).
        starts: the token with which each feature begins, and the number of all tokens.
    """

    outputs: Sequence[Outputs]
    states: Path | None
    shape: tuple[int, int]
    starts: Int[np.ndarray, " features_and_one"]

    def __getitem__(self, row: int) -> Lesson:
        """Return what is said of one feature."""
        if self.states is None:
            return Lesson(self.outputs[row])
        size, (start, end) = math.prod(self.shape), self.starts[row : row + 2].tolist()
        bits = np.fromfile(self.states, dtype=np.int16, count=(end - start) * size, offset=2 * start * size)
        states = torch.from_numpy(bits.reshape(end - start, *self.shape)).view(torch.bfloat16)
        return Lesson(self.outputs[row], states)


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
        folder: for this alone; several trainings with the same teacher share it.
        key: tells teachers apart, such as the digest of their weights; with another one, other features or other
            readings, all is taken anew, and what lies there is removed.
        readings: the activations to keep beside the outputs of the head.

    Raises:
        KronpressError: the disk has not enough space.
    """
    known = json.dumps([key, sorted(readings), [(feature.ids, feature.types) for feature in features]])
    name, sizes = hashlib.sha256(known.encode()).hexdigest()[:32], Sizes.of(teacher)
    path = folder / f"{name}.states" if readings else None
    starts = np.cumsum([0, *(len(feature.ids) for feature in features)])
    place = Lessons([], path, (sizes.activations(readings), sizes.dim), starts)
    outputs = folder / f"{name}.npz"
    found = _read(outputs, features)
    if found is None or (path and (not path.exists() or path.stat().st_size != bytes_of(teacher, features, readings))):
        shutil.rmtree(folder, ignore_errors=True)  # what was taken for other models
        files.require_space(folder, needed=bytes_of(teacher, features, readings))
        folder.mkdir(parents=True, exist_ok=True)
        found = _take(teacher, features, readings, place=place)
        _write(outputs, found)
    return replace(place, outputs=found)


def bytes_of(teacher: PreTrainedModel, features: Sequence[Feature], readings: Collection[Reading]) -> int:
    """Return what the activations of all features take on disk."""
    sizes = Sizes.of(teacher)
    return 2 * sum(len(feature.ids) for feature in features) * sizes.activations(readings) * sizes.dim


def _take(
    teacher: PreTrainedModel, features: Sequence[Feature], readings: Collection[Reading], *, place: Lessons
) -> list[Outputs]:
    """Run the teacher once over all features, write its activations where they are to be, and return its outputs."""
    if place.states is None:
        return predict(teacher, features, progress="teacher")
    with (
        tracing(teacher, readings) as trace,
        files.replacing(place.states) as partial,
        partial.open("wb") as stream,
    ):

        def keep(rows: Sequence[int]) -> None:
            bits = trace.taken().to(torch.bfloat16).cpu().view(torch.int16).numpy()
            for row, each in zip(rows, bits, strict=True):
                start, end = place.starts[row : row + 2].tolist()
                stream.seek(2 * start * math.prod(place.shape))
                stream.write(each[: end - start].tobytes())

        found = predict(teacher, features, progress="teacher", after_batch=keep)
    return found


def _write(path: Path, outputs: Sequence[Outputs]) -> None:
    """Write outputs of alike form: the file that says that all is there."""
    flat, spans, classes = np.concatenate([each.ravel() for each in outputs]), outputs[0].ndim == 2, len(outputs[0])
    with files.replacing(path) as partial, partial.open("wb") as stream:
        np.savez(stream, outputs=flat, spans=spans, classes=classes)


def _read(path: Path, features: Sequence[Feature]) -> list[Outputs] | None:
    """Return the outputs for the features, or None where they are not there whole."""
    try:
        with path.open("rb") as stream, np.load(stream) as stored:
            flat, spans, classes = stored["outputs"], bool(stored["spans"]), int(stored["classes"])
    except (OSError, ValueError, TypeError, KeyError, EOFError, BadZipFile):
        return None
    sizes = [2 * len(feature.ids) if spans else classes for feature in features]
    if flat.shape != (sum(sizes),):
        return None
    parts = np.split(flat, np.cumsum(sizes)[:-1])
    return [each.reshape(2, -1) if spans else each for each in parts]
