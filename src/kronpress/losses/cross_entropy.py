"""How surprised the student is by the text."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from kronpress.losses.loss import LOSSES, LogitLoss
from kronpress.losses.predictions import Predictions, TeacherPredictions


@LOSSES.enroll
class CrossEntropy(LogitLoss):
    """-log of the probability of the label: the next token, or the masked one.

    Attributes:
        smoothing: ε; the target is 1 - ε on the label and ε spread evenly over the vocabulary (label smoothing,
            Szegedy et al., 2016, section 7).
    """

    kind: ClassVar[str] = "cross_entropy"
    compares: ClassVar[bool] = False
    vanishes: ClassVar[bool] = False
    smoothing: float = Field(default=0.0, ge=0, lt=1)

    @property
    def labeled(self) -> bool:
        """Whether only tokens with a label count: always."""
        return True

    def per_token(
        self, student: Predictions, teacher: TeacherPredictions | None, labels: Int[Tensor, " tokens"]
    ) -> tuple[Float[Tensor, " tokens"], Float[Tensor, "tokens vocabulary"]]:
        """Return the cross-entropy and its gradient."""
        log_student, target = student.log_probabilities(), labels.clamp_min(0)[:, None]
        value, slope = -log_student.gather(1, target)[:, 0], log_student.exp()
        if self.smoothing:
            value = (1 - self.smoothing) * value - self.smoothing * log_student.mean(dim=1)
            slope -= self.smoothing / slope.shape[1]
        return value, slope.scatter_add_(1, target, slope.new_full((1, 1), self.smoothing - 1).expand_as(target))
