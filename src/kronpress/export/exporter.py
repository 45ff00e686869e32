"""What every export has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from transformers import PreTrainedModel

from kronpress.checkpoint import files
from kronpress.export.parity import TOLERANCE, Parity
from kronpress.registry import Shelf


@runtime_checkable
class Written(Protocol):
    """What the command tells of an export."""

    @property
    def done(self) -> str:
        """What was done to the layers."""

    @property
    def parameters(self) -> int:
        """The numbers stored, a tied head once."""

    def proof(self, *, tolerance: float) -> str:
        """Say how equal it is to the model."""


@dataclass(frozen=True)
class Export:
    """A folder that was written.

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

    def proof(self, *, tolerance: float) -> str:
        """Say how equal the outputs are."""
        return f"parity: {self.parity.sentence(tolerance=tolerance)}"


@dataclass(frozen=True)
class Exporter(ABC):
    """A format to export to.

    Attributes:
        tolerance: the largest difference of outputs that is allowed; see `Parity`.
    """

    kind: ClassVar[str]
    tolerance: float = TOLERANCE

    def require(self, folder: Path) -> None:
        """Check that an export can be written at a path, before a model is opened.

        Raises:
            KronpressError: it cannot.
        """
        files.require_empty(folder)

    @abstractmethod
    def write(self, model: PreTrainedModel, folder: str | Path, *, tokenizer: Any = None) -> Written:
        """Write `model` into `folder`; where outputs can be compared, prove that they are the same.

        Args:
            model: any supported model, which is left as it is.
            folder: must be absent or empty, and stays so where the export is refused; for some formats a file.
            tokenizer: saved beside the weights; it also gives the comparison a window of real text.

        Raises:
            KronpressError: what was written computes something else, the folder holds something, or the disk has too
                little space.
        """


EXPORTERS: Shelf[type[Exporter]] = Shelf("export format")
