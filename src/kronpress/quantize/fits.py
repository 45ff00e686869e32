"""How the codes of a matrix are found."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from kronpress.registry import Shelf
from kronpress.validation import Checked


class QuantizeFit(Checked):
    """How the codes of a matrix are found.

    Attributes:
        reads_text: whether the fit looks at the training text.
    """

    kind: ClassVar[str]
    reads_text: ClassVar[bool] = False


QUANTIZE_FITS: Shelf[type[QuantizeFit]] = Shelf("fit")


@QUANTIZE_FITS.enroll
class Nearest(QuantizeFit):
    """Every number goes where its quantizer puts it; latent numbers of an earlier step are kept."""

    kind: ClassVar[str] = "nearest"


@QUANTIZE_FITS.enroll
class Compensated(QuantizeFit):
    """The outputs of each linear layer stay near to those before, on text (see `compensated`).

    The text streams through the model as it is quantized, block by block. The table of the output head is fitted to
    what the head is given before; a tied one as much to all inputs alike, for it is also what enters the model. Other
    tables, and layers with factors, have no such inputs; their numbers go where the quantizer puts them, as do those
    of a table whose quantizer would not keep other codes.

    Attributes:
        tokens: calibration tokens, in windows from all over the training text.
        window: tokens per window; by default 512, or as many as the model sees.
        rounds: how often scales and codes are fitted to one another.
        ridge: regularization, relative to the mean second moment of an input.
    """

    kind: ClassVar[str] = "compensated"
    reads_text: ClassVar[bool] = True
    tokens: int = Field(default=32768, ge=1)
    window: int | None = Field(default=None, ge=2)
    rounds: int = Field(default=2, ge=0)
    ridge: float = Field(default=1e-2, gt=0)
