"""Whether a teacher is run at every step, or asked once and what it said is stored: decided here alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kronpress import processes
from kronpress.activations.attention import training_attention
from kronpress.activations.trace import Reading
from kronpress.errors import KronpressError
from kronpress.losses import Loss, Top, compares, readings_of
from kronpress.tasks import Feature
from kronpress.teacher.live import TextHead, frozen_copy, task_live, text_live
from kronpress.teacher.task_outputs import activation_bytes, build_task
from kronpress.teacher.teacher import Teacher
from kronpress.teacher.text_outputs import Likeliest, StoredText, Windows, build_text, open_text

_PASSES = 2  # over the examples from which on it pays to store activations

TextTeacher: TypeAlias = Teacher[TextHead] | Teacher[Top]


@dataclass(frozen=True)
class Storage:
    """Where what a teacher says may be stored, and whether it is to be.

    Attributes:
        folder: for the outputs of one teacher.
        max_bytes: what they may take on disk.
        wanted: what the user says; by default they are stored where that pays.
    """

    folder: Path
    max_bytes: int
    wanted: bool | None = None

    def pays(self, readings: Collection[Reading], *, passes: float = math.inf, needed: int = 0) -> bool:
        """Decide whether a teacher is asked once, rather than run at every step.

        Args:
            readings: the activations to store beside its predictions, which are small.
            passes: over the examples.
            needed: bytes that the activations take.
        """
        if self.wanted is not None:
            return self.wanted
        if not readings:
            return True
        return "attentions" not in readings and passes >= _PASSES and needed <= self.max_bytes


def text_teacher(
    losses: Mapping[str, Loss],
    windows: Windows,
    *,
    open_model: Callable[[], PreTrainedModel],
    vocabulary: int,
    device: torch.device,
    storage: Storage,
) -> TextTeacher | None:
    """Return what a student learns from that reads text; None where no loss compares with a teacher.

    All processes call it.

    Args:
        losses: what the student is trained on.
        windows: all that will be read, each once.
        open_model: returns the teacher's model, which is copied; not called where all that it says is stored already.
        vocabulary: size of the student's.
        device: where the student is.
        storage: of this training alone.

    Raises:
        KronpressError: the losses look at more than can be stored, or the disk has not enough space.
    """
    readings = readings_of(losses)
    if not compares(losses):
        return None
    if storage.pays(readings):
        kept = Likeliest.of(losses, vocabulary=vocabulary)
        return processes.from_main(lambda: _stored_text(windows, open_model, device=device, kept=kept, storage=storage))
    return text_live(frozen_copy(open_model(), device), readings=readings)


def _stored_text(
    windows: Windows,
    open_model: Callable[[], PreTrainedModel],
    *,
    device: torch.device,
    kept: Likeliest,
    storage: Storage,
) -> StoredText:
    """Open what an interrupted run stored to the end, or build what is missing of it."""
    with suppress(KronpressError):
        return open_text(storage.folder, windows, kept=kept)
    model = frozen_copy(open_model(), device)
    with training_attention(model):
        return build_text(storage.folder, model, windows, kept=kept, max_bytes=storage.max_bytes)


def task_teacher(
    losses: Mapping[str, Loss],
    features: Sequence[Feature],
    *,
    model: PreTrainedModel,
    passes: float,
    storage: Storage,
) -> Teacher[Tensor] | None:
    """Return what a student learns from that is trained on a task; None where no loss compares with a teacher.

    All processes call it.

    Args:
        losses: what the student is trained on.
        features: all that will be read, each once.
        model: the teacher's, fine-tuned for the task.
        passes: over the features.
        storage: for this teacher and these features; several students share it.

    Raises:
        KronpressError: the disk has not enough space.
    """
    readings = readings_of(losses)
    if not compares(losses):
        return None
    if storage.pays(readings, passes=passes, needed=activation_bytes(model, features, readings)):
        return processes.from_main(lambda: build_task(storage.folder, model, features, readings=readings))
    return task_live(model, readings=readings)
