from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kronpress.errors import KronpressError
from kronpress.layers import (
    FactoredHead,
    KroneckerEmbedding,
    KroneckerLinear,
    NestedKroneckerEmbedding,
    StructuredSpec,
    kronecker,
    parse_spec,
)
from kronpress.linalg import KroneckerShape, KroneckerSum, nearest_kronecker_sum

SIZES = st.integers(1, 4)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def a_sum(*, terms: int = 2, m1: int = 3, n1: int = 2, m2: int = 4, n2: int = 5) -> KroneckerSum:
    return KroneckerSum(random(terms, m1, n1, seed=1), random(terms, m2, n2, seed=2))


@given(m1=SIZES, n1=SIZES, m2=SIZES, n2=SIZES, terms=st.integers(1, 3), batch=st.integers(0, 3))
@settings(deadline=None, max_examples=60)
def test_both_orders_of_contraction_agree_with_kron(m1: int, n1: int, m2: int, n2: int, terms: int, batch: int) -> None:
    value, x = a_sum(terms=terms, m1=m1, n1=n1, m2=m2, n2=n2), random(batch, n1 * n2, seed=3)
    dense = sum(torch.kron(a, b) for a, b in zip(value.left, value.right, strict=True))
    for contract in (kronecker._right_first, kronecker._left_first):
        y = contract(x.view(batch, n1, n2), value.left, value.right)
        torch.testing.assert_close(y.reshape(batch, m1 * m2), x @ dense.T)


@pytest.mark.parametrize("scales", [None, torch.tensor([2.0, -0.5], dtype=torch.float64)])
def test_the_weight_is_the_scaled_sum_of_kron(scales: torch.Tensor | None) -> None:
    value = a_sum()
    factors = [1.0, 1.0] if scales is None else scales.tolist()
    expected = sum(s * torch.kron(a, b) for s, a, b in zip(factors, value.left, value.right, strict=True))
    torch.testing.assert_close(KroneckerLinear.of(value, scales=scales).dense_weight(), expected)
    torch.testing.assert_close(KroneckerEmbedding.of(value, scales=scales).dense_weight(), expected)


def test_scales_are_trained_apart_from_the_factors() -> None:
    layer = KroneckerLinear.of(a_sum(), scales=torch.ones(2))
    assert isinstance(layer.scales, nn.Parameter)
    assert layer.scales.dtype == torch.float64
    layer(random(10)).sum().backward()
    assert layer.scales.grad is not None
    assert layer.parameter_count == a_sum().left.numel() + a_sum().right.numel() + 2


def test_the_bias_is_copied() -> None:
    bias = random(12)
    layer = KroneckerLinear.of(a_sum(), bias=bias)
    bias.zero_()
    assert layer.bias is not None
    assert layer.bias.abs().min() > 0


def test_an_input_of_another_size_is_refused() -> None:
    with pytest.raises(KronpressError, match="the input has 9 features; this layer takes 10"):
        KroneckerLinear.of(a_sum())(torch.zeros(2, 9, dtype=torch.float64))


def test_an_unknown_kind_is_refused_with_the_nearest() -> None:
    with pytest.raises(KronpressError, match="unknown layer kind 'kroneker_linear': did you mean 'kronecker_linear'"):
        parse_spec({"kind": "kroneker_linear"}, StructuredSpec, place="the spec")


def test_rows_of_a_table_are_products_of_rows() -> None:
    table = KroneckerEmbedding.of(a_sum(terms=1, n2=5))
    row = table(torch.tensor([7]))
    torch.testing.assert_close(row[0], torch.kron(table.left[0, 7 // 4], table.right[0, 7 % 4]))


def test_only_the_rows_that_were_looked_up_are_trained() -> None:
    table = KroneckerEmbedding.of(a_sum())
    table(torch.tensor([0, 1])).sum().backward()  # both in the first group of four rows
    assert table.left.grad is not None
    assert torch.equal(table.left.grad[:, 1:], torch.zeros(2, 2, 2, dtype=torch.float64))


def test_the_padding_index_is_handed_on() -> None:
    table = KroneckerEmbedding.of(a_sum(), padding_idx=3)
    assert table.to_dense().padding_idx == table.spec.padding_idx == 3


def test_folded_scales_leave_the_function_and_fewer_parameters() -> None:
    for layer in (
        KroneckerLinear.of(a_sum(), scales=torch.tensor([2.0, -0.5])),
        KroneckerEmbedding.of(a_sum(m2=1), scales=torch.tensor([2.0, -0.5])),
    ):
        before, count = layer.dense_weight(), layer.parameter_count
        layer.fold_scales()
        torch.testing.assert_close(layer.dense_weight(), before)
        assert layer.parameter_count == count - 2
        assert not layer.spec.scales


@pytest.mark.parametrize("scales", [None, torch.tensor([2.0, -0.5])])
def test_a_head_scores_with_the_very_table(scales: torch.Tensor | None) -> None:
    table, bias = KroneckerEmbedding.of(a_sum(), scales=scales), nn.Parameter(random(12))
    head = FactoredHead.of(table, bias=bias)
    assert head.table is table
    assert head.bias is bias
    both = nn.ModuleList([table, head])
    assert sum(p.numel() for p in both.parameters()) == table.parameter_count + 12
    x = random(3, 10, seed=5)
    torch.testing.assert_close(head(x), x @ table.to_dense().weight.T + bias)
    assert FactoredHead.of(table).bias is None


def test_orders_put_rows_and_columns_where_they_were() -> None:
    weight, rows, columns = random(12, 10), torch.randperm(12), torch.randperm(10)
    shape = KroneckerShape(m1=3, n1=5, m2=4, n2=2)
    value = nearest_kronecker_sum(weight[rows][:, columns], shape=shape, terms=8)
    orders = {"row_order": rows.argsort(), "column_order": columns}
    layer, table, x = (
        KroneckerLinear.of(value, orders=orders),
        KroneckerEmbedding.of(value, orders=orders),
        random(4, 10),
    )
    for found in (layer.dense_weight(), table.dense_weight(), table(torch.arange(12))):
        torch.testing.assert_close(found, weight)
    torch.testing.assert_close(layer(x), x @ weight.T)
    torch.testing.assert_close(table.scores(x), x @ weight.T)


def test_a_nested_table_is_the_product_of_its_levels() -> None:
    inner, right, order = KroneckerEmbedding.of(a_sum()), random(2, 3), torch.randperm(30)
    table = NestedKroneckerEmbedding.of(inner, right, column_order=order)
    weight = torch.kron(inner.dense_weight(), right)
    torch.testing.assert_close(table.dense_weight()[:, order], weight)
    torch.testing.assert_close(table(torch.arange(24)), table.dense_weight())
    assert table.distance(table.dense_weight() + 1) == pytest.approx((24 * 30) ** 0.5)


def test_a_layer_of_the_nearest_sum_computes_what_the_sum_computes() -> None:
    weight, x = random(12, 10), random(4, 10, seed=9)
    nearest = nearest_kronecker_sum(weight, shape=KroneckerShape(m1=3, n1=5, m2=4, n2=2), terms=8)
    torch.testing.assert_close(KroneckerLinear.of(nearest)(x), x @ weight.T)
