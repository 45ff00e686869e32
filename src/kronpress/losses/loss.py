"""What every distillation loss has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn

from kronpress.activations.trace import Reading, Sizes, Trace
from kronpress.losses.predictions import Predictions, TeacherPredictions
from kronpress.registry import Shelf
from kronpress.validation import Checked

IGNORED = -100
"""The label of a token at which nothing is to be predicted."""


class Loss(Checked, ABC):
    """A term of what is minimized; its fields are its hyperparameters.

    Attributes:
        weight: factor of the term in the sum.
        compares: whether it compares with the teacher.
        vanishes: whether it is then zero where the student equals the teacher.
    """

    kind: ClassVar[str]
    compares: ClassVar[bool] = True
    vanishes: ClassVar[bool] = True
    weight: float = Field(default=1.0, ge=0)


class LogitLoss(Loss):
    """A loss of each token's logits, which come a few tokens at a time, so that the logits of all never exist."""

    @property
    def labeled(self) -> bool:
        """Whether only tokens with a label count."""
        return False

    @abstractmethod
    def per_token(
        self, student: Predictions, teacher: TeacherPredictions | None, labels: Int[Tensor, " tokens"]
    ) -> tuple[Float[Tensor, " tokens"], Float[Tensor, "tokens vocabulary"]]:
        """Return each token's loss in nats and its gradient with respect to the student's logits.

        What tokens without a label get does not matter where `labeled`; `teacher` is None where not `compares`.
        """


class LayerLoss(Loss):
    """A loss between activations inside of student and teacher, differentiated by autograd."""

    @property
    @abstractmethod
    def reads(self) -> frozenset[Reading]:
        """Which activations it needs."""

    @property
    def reads_of_student(self) -> frozenset[Reading]:
        """What it needs of the student alone, beside these."""
        return frozenset()

    def projection(self, student: Sizes, teacher: Sizes) -> nn.Module | None:
        """Return what stays from batch to batch beside the student, as part of the training's checkpoints.

        These are maps from the student's width to the teacher's, which are trained along, and what a loss remembers.

        Raises:
            KronpressError: the two models do not fit together under this loss.
        """
        return None

    @abstractmethod
    def __call__(
        self, student: Trace, teacher: Trace, *, seen: Bool[Tensor, "batch tokens"], projection: nn.Module | None
    ) -> Float[Tensor, ""]:
        """Return the mean over tokens that are `seen` (not padding), in fp32."""


LOSSES: Shelf[type[Loss]] = Shelf("loss")


def readings_of(losses: Mapping[str, Loss]) -> frozenset[Reading]:
    """Return which activations the losses look at, in student and teacher."""
    return frozenset().union(*(loss.reads for loss in losses.values() if isinstance(loss, LayerLoss)))


def readings_of_student(losses: Mapping[str, Loss]) -> frozenset[Reading]:
    """Return which activations the losses look at in the student."""
    own = (loss.reads_of_student for loss in losses.values() if isinstance(loss, LayerLoss))
    return readings_of(losses).union(*own)


def compares(losses: Mapping[str, Loss]) -> bool:
    """Say whether any of the losses compares the student with a teacher."""
    return any(loss.compares for loss in losses.values())
