"""What tests check at every call: the shapes that annotations name, and plain types too."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import jaxtyping
import pytest
import torch
from beartype.roar import BeartypeCallHintParamViolation
from jaxtyping import Float
from torch import Tensor

from kronpress.activations import BlockStream
from kronpress.linalg.kronecker import expand
from kronpress.linalg.packing import packed_size
from tests.tiny import some_ids, tiny_llama
from tests.typecheck import checked


def test_a_wrong_shape_and_a_wrong_type_are_noticed() -> None:
    with pytest.raises(BeartypeCallHintParamViolation, match="right"):
        expand(torch.ones(2, 3, 4), torch.ones(3, 3, 4))
    text: Any = "3"
    with pytest.raises(BeartypeCallHintParamViolation, match="count"):
        packed_size(text, base=2)


def test_a_generator_stays_one_so_that_no_grad_knows_it() -> None:
    @torch.no_grad()
    @jaxtyping.jaxtyped(typechecker=checked)
    def doubles(rows: Float[Tensor, "rows dim"]) -> Iterator[Float[Tensor, " dim"]]:
        for row in rows:
            yield 2 * row

    assert inspect.isgeneratorfunction(doubles)
    assert not any(double.requires_grad for double in doubles(torch.ones(2, 3, requires_grad=True)))
    stream = BlockStream.begin(tiny_llama(), some_ids())
    assert not any(output.requires_grad for _, output in stream.outputs(tiny_llama(), block=0))
