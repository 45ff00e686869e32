from __future__ import annotations

import pytest
import torch
from torch import nn

from kronpress.errors import KronpressError
from kronpress.layers import LowRankLinearSpec, MonarchLinear, MonarchLinearSpec, StructuredSpec, parse_spec
from kronpress.linalg import MonarchMatrix


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def value() -> MonarchMatrix:
    return MonarchMatrix(random(2, 3, 4), random(2, 4, 5, seed=1))


def test_it_computes_with_the_factors_and_copies_the_bias() -> None:
    bias, x = random(6), random(3, 10, seed=2)
    layer = MonarchLinear.of(value(), bias=bias)
    expected = x @ value().to_dense().T + bias
    bias.zero_()
    torch.testing.assert_close(layer(x), expected)
    assert isinstance(layer.bias, nn.Parameter)
    assert layer.extra_repr() == "in=10, out=6, blocks=2, rank=2"


def test_it_costs_what_a_product_of_as_many_columns_in_the_middle_does() -> None:
    monarch = MonarchLinearSpec(in_features=576, out_features=1536, blocks=4, rank=52)
    low_rank = LowRankLinearSpec(in_features=576, out_features=1536, rank=208)
    assert monarch.parameters == low_rank.parameters == 208 * (576 + 1536) + 1536
    assert monarch.flops_per_token == low_rank.flops_per_token


def test_the_product_is_never_formed() -> None:
    layer = MonarchLinearSpec(in_features=2**20, out_features=2**20, blocks=2, bias=False).build()
    assert layer(torch.zeros(1, 2**20)).shape == (1, 2**20)


def test_an_input_of_another_size_is_refused() -> None:
    with pytest.raises(KronpressError, match="the input has 5 features; this layer takes 10"):
        MonarchLinear.of(value())(random(2, 5))


def test_blocks_that_do_not_divide_are_refused() -> None:
    fields = {"kind": "monarch_linear", "in_features": 10, "out_features": 6, "blocks": 4, "rank": 1}
    with pytest.raises(KronpressError, match=r"monarch_linear.*blocks is 4, which must divide .*; choose one of 1, 2"):
        parse_spec(fields, StructuredSpec, place="the spec")
