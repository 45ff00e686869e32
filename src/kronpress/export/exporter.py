"""What every export has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

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


@dataclass(frozen=True)
class Exporter(ABC):
    """A format to export to.

    Attributes:
        tolerance: the largest difference of outputs that is allowed; see `Parity`.
    """

    kind: ClassVar[str]
    tolerance: float = TOLERANCE

    @abstractmethod
    def write(self, model: PreTrainedModel, folder: str | Path, *, tokenizer: Any = None) -> Export:
        """Write `model` into `folder` and prove that it is the same.

        Args:
            model: any supported model, which is left as it is.
            folder: must be absent or empty, and stays so where the export is refused.
            tokenizer: saved beside the weights; it also gives the comparison a window of real text.

        Raises:
            KronpressError: what was written computes something else, the folder holds something, or the disk has too
                little space.
        """


EXPORTERS: Shelf[type[Exporter]] = Shelf("export format")
