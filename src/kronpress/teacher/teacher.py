"""What a student learns from: one interface, whether a model is run or what it said was stored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor
from transformers import PreTrainedModel

from kronpress.activations.trace import Reading, Sizes, Trace
from kronpress.teacher.store import Store

PredictionsT = TypeVar("PredictionsT")

STORED = "teacher_"
"""How the names of what a stored teacher said begin in a batch; no model reads them."""


@dataclass(frozen=True)
class Offer:
    """What a teacher can be asked for.

    Attributes:
        vocabulary: how many ids its predictions are over.
        readings: which of its activations it gives.
        sizes: of the model, for losses between activations; None where it gives none.
        top_k: how many of the likeliest ids it tells apart; None where it gives all logits.
    """

    vocabulary: int
    readings: frozenset[Reading]
    sizes: Sizes | None
    top_k: int | None = None


class Teacher(ABC, Generic[PredictionsT]):
    """What a student learns from.

    Attributes:
        offer: what it can be asked for.
    """

    offer: Offer

    @abstractmethod
    def look(self, batch: Mapping[str, Tensor | None]) -> tuple[PredictionsT, Trace]:
        """Return what it predicts for a batch, and its activations, without a gradient.

        The caller says in which number format matrix products run, see `precision.mixed_precision`.
        """

    @property
    def models(self) -> tuple[PreTrainedModel, ...]:
        """The models that run when it is looked at: none where what it said was stored."""
        return ()


class StoredTeacher(Teacher[PredictionsT]):
    """A teacher that was asked once: each batch carries what it said, under names that it alone reads."""

    store: Store

    @abstractmethod
    def said(self, row: int) -> dict[str, Tensor]:
        """Return what it said of an example."""


def model_inputs(batch: Mapping[str, Tensor | None]) -> dict[str, Tensor | None]:
    """Return what of a batch a model reads: neither labels nor what a stored teacher said."""
    return {name: value for name, value in batch.items() if name != "labels" and not name.startswith(STORED)}
