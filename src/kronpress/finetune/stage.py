"""A further training of a model, with its numbers on grids of fewer bits."""

from __future__ import annotations

from typing import Any

from pydantic import Field, SerializeAsAny, field_validator
from torch import Tensor
from transformers import PreTrainedModel

from kronpress.losses import Loss, parse_losses
from kronpress.quantizers import Scheme, round_inputs


class Stage(Scheme):
    """A further training of the student: which tensors go on which grids, where it begins, and how it is trained.

    Attributes:
        start: the model from whose best epoch it begins: `teacher`, `student`, or another stage; by default the stage
            before it, and the student for the first.
        teacher: the stage that it learns from, where that is not the task's teacher: distillation through
            intermediate precisions, as BiT does.
        losses: what it is trained on; the student's by default.
        epochs: passes over the training set; the student's by default.
        learning_rate: peak; the student's by default.
        augmented: whether it reads the copies that `augment` makes.
    """

    start: str | None = None
    teacher: str | None = None
    losses: dict[str, SerializeAsAny[Loss]] | None = Field(default=None, min_length=1)
    epochs: float | None = Field(default=None, gt=0)
    learning_rate: float | None = Field(default=None, gt=0)
    augmented: bool = True

    @field_validator("losses", mode="before")
    @classmethod
    def _named(cls, value: Any) -> dict[str, Loss] | None:
        return None if value is None else parse_losses(value)


def put_on_grids(model: PreTrainedModel, stage: Stage, *, batch: dict[str, Tensor]) -> None:
    """Put the numbers of a model on the grids of a stage, where they learn from now on.

    What lies on such a grid already, by the same quantizer, goes on learning.

    Args:
        model: whose latent numbers are gone on from, where it has such.
        stage: says which grids.
        batch: from what the model makes of it, the ranges of rounded inputs begin.
    """
    targets = stage.targets(model)
    for target in targets:
        for matrix in target.matrices(target.layer(model)):
            if not target.holds(matrix):
                target.put(matrix)
    round_inputs(model, targets, batch)
