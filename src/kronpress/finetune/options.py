"""What a recipe says of a single task, of the teacher and of other models beside the student."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from pydantic import Field, SerializeAsAny, field_validator

from kronpress.finetune.augment import Augment
from kronpress.losses import LOSSES, Loss, parse_losses
from kronpress.tasks import TASKS
from kronpress.validation import Checked, parse

SelectOn: TypeAlias = Literal["dev", "train"]
"""What selects epochs and seeds: the dev set, or a part of the training set that is held out."""

LABELS_ALONE: dict[str, Loss] = {"cross_entropy": LOSSES["cross_entropy"]()}
"""The losses of a model that learns from a task's labels and from no teacher."""


class TaskOptions(Checked):
    """What a step does differently for one of its tasks.

    Attributes:
        data: a folder or `hub:`.
        epochs: passes over the training set.
        learning_rate: peak.
        batch: examples per optimizer step.
        max_length: tokens of an example.
        losses: what the student is trained on.
        after: another task of the step, from whose best runs all models that are trained on this one begin (STILTs,
            Phang et al., 2018, arXiv:1811.01088).
        unlabeled: tasks whose training texts are read as well, without their labels, by all that learn from a teacher.
        augment: copies of the training examples with words replaced, `step` for what the step says, or null for none.
    """

    data: str | None = None
    epochs: float | None = Field(default=None, gt=0)
    learning_rate: float | None = Field(default=None, gt=0)
    batch: int | None = Field(default=None, ge=1)
    max_length: int | None = Field(default=None, ge=4)
    losses: dict[str, SerializeAsAny[Loss]] | None = Field(default=None, min_length=1)
    after: str | None = None
    unlabeled: tuple[str, ...] = ()
    augment: Augment | Literal["step"] | None = "step"

    @field_validator("augment", mode="before")
    @classmethod
    def _described(cls, value: Any) -> Any:
        return parse(Augment, value, place="augment") if isinstance(value, dict) else value

    @field_validator("losses", mode="before")
    @classmethod
    def _named(cls, value: Any) -> dict[str, Loss] | None:
        return None if value is None else parse_losses(value)

    @field_validator("after")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        return None if value is None else TASKS[value].name

    @field_validator("unlabeled", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("unlabeled")
    @classmethod
    def _all_known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(TASKS[name].name for name in value)


class TeacherOptions(Checked):
    """How the recipe's model is fine-tuned to become the teacher.

    Attributes:
        epochs: passes over the training set; as many as the student's by default.
        learning_rate: peak; students with few parameters often need a higher one than their teacher bears.
        dropout: by default what its configuration says.
    """

    epochs: float | None = Field(default=None, gt=0)
    learning_rate: float = Field(default=5e-5, gt=0)
    dropout: float | None = Field(default=None, ge=0, lt=1)


class Baseline(Checked):
    """Another model, or another training, that stands in the same table.

    Attributes:
        model: a folder or hub id; the student itself by default.
        losses: what it is trained on; the task's labels alone by default.
        learning_rate: peak; the student's by default.
    """

    model: str | None = None
    losses: dict[str, SerializeAsAny[Loss]] = Field(default=LABELS_ALONE, min_length=1)
    learning_rate: float | None = Field(default=None, gt=0)

    @field_validator("losses", mode="before")
    @classmethod
    def _named(cls, value: Any) -> dict[str, Loss]:
        return parse_losses(value)
