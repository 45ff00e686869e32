from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from kronpress.errors import KronpressError
from kronpress.layers import (
    FactoredHead,
    StructuredSpec,
    TensorTrainEmbedding,
    TensorTrainLinear,
    TensorTrainLinearSpec,
    parse_spec,
    tensor_train,
)
from kronpress.linalg import TensorTrainMatrix, TensorTrainTable, expand_rows, expand_train, paired_modes

SIZES = st.integers(1, 3)
MODES = st.lists(st.tuples(SIZES, SIZES), min_size=1, max_size=4)
ROW_MODES = st.lists(SIZES, min_size=1, max_size=4)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def chain(modes: list[tuple[int, int]], rank: int = 2) -> TensorTrainMatrix:
    ranks = [1, *[rank] * (len(modes) - 1), 1]
    return TensorTrainMatrix(tuple(random(ranks[k], m, n, ranks[k + 1], seed=k) for k, (m, n) in enumerate(modes)))


def rows_of(modes: list[int], *, rows: int = 5, rank: int = 2) -> TensorTrainTable:
    ranks = [1, *[rank] * (len(modes) - 1), 1]
    return TensorTrainTable(tuple(random(rows, ranks[k], m, ranks[k + 1], seed=k) for k, m in enumerate(modes)))


def counted(call: object, *arguments: torch.Tensor) -> int:
    assert callable(call)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call(*arguments)
    return counter.get_total_flops()


@given(modes=MODES, rank=st.integers(1, 3), batch=st.integers(0, 3))
@settings(deadline=None, max_examples=60)
def test_both_orders_compute_the_product_and_cost_what_they_say(
    modes: list[tuple[int, int]], rank: int, batch: int
) -> None:
    value = chain(modes, rank)
    layer, ascending = TensorTrainLinear.of(value), tuple(range(len(modes)))
    x = random(batch, layer.in_features, seed=9)
    cheapest, costs = layer.flops_per_token, []
    for order in (ascending, ascending[::-1]):
        layer.order = order
        for answer in (layer, layer._chain):
            torch.testing.assert_close(answer(x), x @ expand_train(value.cores).T)
        costs.append(sum(2 * length * count for length, count in layer.spec.products(order)))
        assert counted(layer._chain, x) == batch * costs[-1]
    assert cheapest == min(costs)


def test_many_inputs_at_a_high_rank_cost_little_more_than_the_dense_product() -> None:
    layer = TensorTrainLinearSpec(modes=((8, 8), (8, 8)), ranks=(64,), bias=False).build()
    one, many = torch.zeros(1, 64), torch.zeros(512, 64)
    assert counted(layer, one) == layer.flops_per_token > 2 * 64 * 64
    assert counted(layer, many) < 2 * 512 * 64 * 64 * 1.3


def test_a_published_matrix_meets_the_narrow_side_first() -> None:
    up, down = (
        TensorTrainLinearSpec(modes=paired_modes(matrix, at_least=16), ranks=(16,) * 4, bias=False).build(device="meta")
        for matrix in ((3072, 768), (768, 3072))
    )
    assert up.parameter_count == down.parameter_count == 13_120
    assert (up.order, down.order) == ((0, 1, 2, 3, 4), (4, 3, 2, 1, 0))
    assert up.flops_per_token == down.flops_per_token
    assert up.extra_repr() == "in=768, out=3072, modes=4×4 4×4 4×4 4×4 12×3, ranks=16 16 16 16"


def test_the_product_is_never_formed() -> None:
    layer = TensorTrainLinearSpec(modes=((16, 16),) * 4, ranks=(2,) * 3, bias=False).build()
    assert layer.matrix == (65_536, 65_536)
    assert layer(torch.zeros(1, 65_536)).shape == (1, 65_536)


def test_the_bias_is_copied() -> None:
    bias = random(6)
    layer = TensorTrainLinear.of(chain([(2, 2), (3, 2)]), bias=bias)
    bias.zero_()
    assert isinstance(layer.bias, nn.Parameter)
    assert layer.bias.abs().min() > 0


def test_an_input_of_another_size_is_refused() -> None:
    with pytest.raises(KronpressError, match="the input has 5 features; this layer takes 4"):
        TensorTrainLinear.of(chain([(2, 2), (3, 2)]))(torch.zeros(2, 5, dtype=torch.float64))


@pytest.mark.parametrize("kind", ["tensor_train_linear", "tensor_train_embedding"])
def test_ranks_that_do_not_go_with_the_modes_are_refused(kind: str) -> None:
    modes, more = ([[2, 2], [2, 2]], {}) if "linear" in kind else ([2, 2], {"num_embeddings": 3})
    with pytest.raises(KronpressError, match="2 ranks for 2 modes; give those between the cores, 1"):
        parse_spec({"kind": kind, "modes": modes, "ranks": [1, 1], **more}, StructuredSpec, place="the spec")


@given(modes=ROW_MODES, rank=st.integers(1, 3), rows=st.integers(1, 5))
@settings(deadline=None, max_examples=40)
def test_a_table_computes_rows_and_scores_and_costs_what_it_says(modes: list[int], rank: int, rows: int) -> None:
    value = rows_of(modes, rows=rows, rank=rank)
    layer, x = TensorTrainEmbedding.of(value), random(1, math.prod(modes), seed=9)
    table = expand_rows(value.cores)
    assert layer.matrix == tuple(table.shape)
    torch.testing.assert_close(layer(torch.arange(rows)), table)
    torch.testing.assert_close(layer.scores(x), x @ table.T)
    assert counted(layer, torch.tensor([0])) == layer.flops_per_token
    assert counted(layer.scores, x) == sum(2 * length * count for length, count in layer.spec.score_products)


def test_scores_are_formed_some_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x, formed = TensorTrainEmbedding.of(rows_of([2, 3], rows=7)), random(2, 4, 6), []

    def watched(cores: tuple[torch.Tensor, ...]) -> torch.Tensor:
        formed.append(len(cores[0]))
        return expand_rows(cores)

    monkeypatch.setattr(tensor_train, "_CHUNK_ELEMENTS", 18)
    monkeypatch.setattr(tensor_train, "expand_rows", watched)
    scores = layer.scores(x)
    assert formed == [3, 3, 1]
    monkeypatch.undo()
    torch.testing.assert_close(scores, x @ layer.dense_weight().T)


def test_all_rows_are_formed_once_for_many_tokens() -> None:
    layer = TensorTrainEmbedding.of(rows_of([2, 3]))
    per_token = 2 * layer.num_embeddings * layer.embedding_dim
    one, seven = (counted(layer.scores, random(tokens, 6)) for tokens in (1, 7))
    assert seven - one == 6 * per_token


def test_only_the_rows_that_were_looked_up_are_trained() -> None:
    layer = TensorTrainEmbedding.of(rows_of([2, 3]))
    layer(torch.tensor([[0, 3], [3, 3]])).square().sum().backward()
    for core in layer.cores:
        trained = core.grad.flatten(1).abs().amax(1) > 0
        assert trained.tolist() == [True, False, False, True, False]


@pytest.mark.parametrize("batch", [(), (3,), (0, 2)], ids=str)
@pytest.mark.parametrize("bias", [None, random(5, seed=4)])
def test_a_head_over_the_table_computes_as_its_dense_twin(batch: tuple[int, ...], bias: torch.Tensor | None) -> None:
    table = TensorTrainEmbedding.of(rows_of([2, 3]), padding_idx=1)
    head, x = FactoredHead.of(table, bias=bias), random(*batch, 6)
    torch.testing.assert_close(head(x), head.to_dense()(x))
    again = head.spec.build(dtype=torch.float64)
    again.load_state_dict(head.state_dict())
    assert torch.equal(again(x), head(x))
    assert again.table.padding_idx == table.to_dense().padding_idx == 1


def test_scores_have_the_number_format_of_autocast() -> None:
    head = FactoredHead.of(TensorTrainEmbedding.of(rows_of([2, 3]), padding_idx=None)).float()
    with torch.autocast("cpu", torch.bfloat16):
        scores = head(random(4, 6).float())
    assert scores.dtype == torch.bfloat16
    torch.testing.assert_close(scores.float(), head.to_dense()(random(4, 6).float()), atol=0.3, rtol=0.05)
