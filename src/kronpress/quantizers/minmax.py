"""Uniform quantization between the smallest and the largest number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from kronpress.layers.grid import Levels
from kronpress.quantizers.quantizer import QUANTIZERS
from kronpress.quantizers.spanning import Spanning


@QUANTIZERS.enroll
class MinMax(Spanning):
    """Levels in equal steps from min w to max w of the group, at every call (Jacob et al., 2018, section 3).

    s = (max w - min w)/(2ᵇ - 1) and s · round((w - min w)/s) + min w, as in the released codes of TernaryBERT and
    BinaryBERT. Gradients pass straight through; the range counts as a constant.
    """

    kind: ClassVar[str] = "minmax"
    shifted: ClassVar[Sequence[Levels]] = ("uint8", "uint4", "uint3", "uint2")
