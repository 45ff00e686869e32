from __future__ import annotations

import pytest
import torch
from torch import nn

from kronpress.errors import KronpressError
from kronpress.layers import (
    LowRankSparseLinear,
    LowRankSparseLinearSpec,
    StructuredSpec,
    TensorFormat,
    parse_spec,
    stored_numbers,
)
from kronpress.linalg import LowRankSparse


def value() -> LowRankSparse:
    left, right = torch.tensor([[1.0], [2], [3]]), torch.tensor([[1.0, 10]])
    return LowRankSparse(left, right, torch.tensor([[100.0, 200], [7, 7]]), torch.tensor([0, 2]))


def test_it_computes_by_hand_and_copies_the_bias() -> None:
    bias = torch.tensor([0.5, 0.5, 0.5])
    layer = LowRankSparseLinear.of(value(), bias=bias)
    bias.zero_()
    assert layer.to_dense().weight.tolist() == [[101, 210], [2, 20], [10, 37]]
    assert layer(torch.tensor([1.0, 0])).tolist() == [101.5, 2.5, 10.5]
    assert isinstance(layer.bias, nn.Parameter)
    assert layer.extra_repr() == "in=2, out=3, rank=1, rows=2"


def test_which_rows_are_kept_is_stored_in_short_integers_and_not_counted() -> None:
    layer = LowRankSparseLinear.of(value())
    assert layer.kept.dtype == torch.int16
    assert layer.parameter_count == stored_numbers(layer) == 3 + 2 + 4
    assert layer.byte_count == 4 * 9 + 2 * 2
    spec = LowRankSparseLinearSpec(in_features=2, out_features=70_000, rank=1, rows=3, bias=False)
    assert spec.tensors["kept"].format == TensorFormat.of(torch.int32)
    assert spec.build(device="meta").kept.dtype == torch.int32


def test_the_kept_rows_stay_whole_numbers_when_the_number_format_changes() -> None:
    layer = LowRankSparseLinear.of(value()).to(torch.bfloat16)
    assert layer.kept.dtype == torch.int16
    assert layer(torch.ones(2, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_more_rows_than_the_matrix_has_are_refused() -> None:
    fields = {"kind": "low_rank_sparse_linear", "in_features": 2, "out_features": 3, "rank": 1, "rows": 4}
    with pytest.raises(KronpressError, match="rows is 4, and the matrix has 3; choose fewer"):
        parse_spec(fields, StructuredSpec, place="the spec")
