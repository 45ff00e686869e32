"""What tests check at every call: the shapes that annotations name, and plain types too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from beartype.roar import BeartypeCallHintParamViolation

from kronpress.linalg.kronecker import expand
from kronpress.linalg.packing import packed_size


def test_a_wrong_shape_and_a_wrong_type_are_noticed() -> None:
    with pytest.raises(BeartypeCallHintParamViolation, match="right"):
        expand(torch.ones(2, 3, 4), torch.ones(3, 3, 4))
    text: Any = "3"
    with pytest.raises(BeartypeCallHintParamViolation, match="count"):
        packed_size(text, base=2)
