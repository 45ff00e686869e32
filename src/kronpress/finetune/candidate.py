"""A model that is fine-tuned on a task, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from kronpress.checkpoint.digests import weights_digest
from kronpress.finetune.stage import Stage
from kronpress.losses import Loss, compares
from kronpress.validation import path_name


@dataclass(frozen=True)
class Candidate:
    """A model that is to be fine-tuned, and how.

    Attributes:
        name: in reports, and of its folder.
        model: where it starts.
        tokenizer: its own.
        losses: what is minimized.
        epochs: passes over the training set.
        learning_rate: peak.
        dropout: probability, or None for what its configuration says.
        stage: at which bits its numbers are trained, or None for those of full precision.
        augmented: whether it reads augmented examples too, where there are some.
    """

    name: str
    model: PreTrainedModel
    tokenizer: Any
    losses: Mapping[str, Loss]
    epochs: float
    learning_rate: float
    dropout: float | None = None
    augmented: bool = False
    stage: Stage | None = None

    def __post_init__(self) -> None:
        path_name(self.name, what="a model")

    def settings(self) -> dict[str, Any]:
        """Return what the result depends on, but for data and teacher, as JSON values."""
        losses = {label: {"name": loss.kind, **loss.model_dump(mode="json")} for label, loss in self.losses.items()}
        stage = {} if self.stage is None else {"stage": self.stage.model_dump(mode="json")}
        return stage | {
            "losses": losses,
            "epochs": self.epochs,
            "learning_rate": self.learning_rate,
            "dropout": self.dropout,
            "start": weights_digest(self.model),
        }

    @property
    def compares(self) -> bool:
        """Whether it learns from a teacher."""
        return compares(self.losses)
