"""What a step that trains the student did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from kronpress.records.codec import Record


@dataclass(frozen=True)
class TrainingPoint(Record):
    """A loss (in nats) after so many training tokens."""

    tokens: int
    loss: float


@dataclass(frozen=True)
class TeacherStorage(Record):
    """What the teacher's outputs took on disk, from which the student was trained.

    Attributes:
        windows: of the text that the teacher was run over once.
        top_k: logits kept of each token; None where something else was kept.
    """

    bytes: int
    windows: int
    top_k: int | None = None


@dataclass(frozen=True)
class AdapterRecord(Record):
    """The adapters that learned in place of the model's own numbers, and were merged into them.

    Attributes:
        adapters: their kind.
        rank: inner size of their updates.
        trained: numbers that they have.
        frozen: numbers that the model has, none of which was trained.
        tensors: weights and factors that took one.
        left: the paths of those that took none, because they are no larger than their adapter.
    """

    adapters: str
    rank: int
    trained: int
    frozen: int
    tensors: int
    left: tuple[str, ...] = ()

    def told(self) -> str:
        """Return a sentence for a reader."""
        some = f"; {len(self.left):,} took none, being no larger than theirs, as {self.left[0]}" if self.left else ""
        return (
            f"{self.adapters} adapters of rank {self.rank} on {self.tensors:,} tensors learn, {self.trained:,} numbers "
            f"({self.trained / self.frozen:.2%} of the {self.frozen:,} of the model, which are frozen){some}"
        )


@dataclass(frozen=True)
class TrainingRecord(Record):
    """What a training did.

    Attributes:
        tokens: that were read; a text read twice counts twice.
        steps: of the optimizer.
        seconds: of training, over all sittings where it was interrupted; what a stop lost is not in it.
        devices: that trained together, one a process.
        device: what each of them is, in a few words.
        tokens_per_second: None where nothing was logged.
        peak_rss_bytes: the most memory that the process has held until then.
        curve: the training loss.
        validation: the loss on held-out text.
        parts: the last logged mean of each loss, by the recipe's labels.
        window: tokens of text in a training window; None where examples are read instead.
        teacher: what was stored of the teacher; None where it was run at every step, or there is none.
        adapters: what was trained in place of the model's own numbers; None where those were.
    """

    kind: Literal["training"] = field(default="training", kw_only=True)
    tokens: int
    steps: int
    seconds: float
    tokens_per_second: float | None
    peak_rss_bytes: int
    curve: tuple[TrainingPoint, ...]
    validation: tuple[TrainingPoint, ...] = ()
    parts: Mapping[str, float] = field(default_factory=dict)
    devices: int = 1
    device: str = ""
    window: int | None = None
    teacher: TeacherStorage | None = None
    adapters: AdapterRecord | None = None

    @property
    def device_hours(self) -> float:
        """Hours that all devices together trained."""
        return self.devices * self.seconds / 3600
