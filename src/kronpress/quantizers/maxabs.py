"""Uniform quantization up to the largest absolute number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from kronpress.layers.grid import Levels
from kronpress.quantizers.quantizer import QUANTIZERS
from kronpress.quantizers.spanning import Spanning


@QUANTIZERS.enroll
class MaxAbs(Spanning):
    """Levels in equal steps up to max |w| of the group, at every call (Zafrir et al., 2019, Q8BERT).

    s = max |w| / (2ᵇ⁻¹ - 1) and s · round(w/s). Gradients pass straight through; the range counts as a constant.
    """

    kind: ClassVar[str] = "maxabs"
    symmetric: ClassVar[Sequence[Levels]] = ("int8", "int4", "int3", "int2", "ternary")
