"""What every export has in common."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from transformers import PreTrainedModel

from kronpress.export.parity import TOLERANCE, Parity
from kronpress.registry import Shelf


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        folder: where.
        done: what was done to the layers.
        parameters: the numbers stored, a tied head once.
        parity: how equal it is to the model.
    """

    folder: Path
    done: str
    parameters: int
    parity: Parity


class Exporter(Protocol):
    """A format to export to."""

    def __call__(
        self, model: PreTrainedModel, folder: str | Path, *, tokenizer: Any = None, tolerance: float = TOLERANCE
    ) -> Export:
        """Write `model` into `folder` and prove that it is the same."""
        ...


EXPORTERS: Shelf[Exporter] = Shelf("export format")
