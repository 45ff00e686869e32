"""What every distillation loss has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from kronpress.registry import Shelf


class Loss(BaseModel, ABC):
    """A loss between student and teacher; its fields are its hyperparameters."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: ClassVar[str]

    @abstractmethod
    def __call__(
        self,
        student: Float[Tensor, "batch tokens vocabulary"],
        teacher: Float[Tensor, "batch tokens vocabulary"],
        *,
        ids: Int[Tensor, "batch tokens"],
    ) -> Float[Tensor, ""]:
        """Return the loss in nats per token."""


LOSSES: Shelf[type[Loss]] = Shelf("loss")
