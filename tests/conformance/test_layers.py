"""What every structured layer on the shelf must satisfy: it computes what its dense twin computes."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from kronpress.layers import (
    SPECS,
    KroneckerLinear,
    KroneckerLinearSpec,
    StructuredLayer,
    StructuredSpec,
    TableSpec,
    TensorFormat,
    parse_spec,
)

FACTORS: list[dict[str, Any]] = [
    {"left": [3, 2], "right": [2, 5], "terms": 1, "scales": False, "orders": []},
    {"left": [1, 4], "right": [6, 1], "terms": 3, "scales": True, "orders": ["column_order"]},
    {"left": [6, 4], "right": [1, 2], "terms": 2, "scales": True, "orders": ["row_order", "column_order"]},
    {"left": [2, 1], "right": [3, 4], "terms": 2, "scales": False, "orders": ["row_order"]},
    {"left": [1, 1], "right": [1, 1], "terms": 1, "scales": True, "orders": []},
]
TABLES = [{"kind": "kronecker_embedding", "padding_idx": None} | fields for fields in FACTORS]
NESTED = [
    {"kind": "nested_kronecker_embedding", "inner": inner, "right": [2, 3], "column_order": order, "padding_idx": None}
    for inner, order in [(TABLES[0], True), (TABLES[1], False), (TABLES[2], True)]
]
NESTED.append(NESTED[0] | {"inner": NESTED[1], "right": [1, 2]})
GROUPED = [
    {"kind": "grouped_embedding", "groups": [TABLES[0], TABLES[0] | {"left": [2, 5], "right": [1, 2], "terms": 2}]},
    {"kind": "grouped_embedding", "groups": [NESTED[0]]},
]
GROUPED = [spec | {"padding_idx": None} for spec in GROUPED]
PARTS = [{"kind": "kronecker_linear", "bias": False} | FACTORS[0], {"kind": "low_rank_linear", "bias": False}]
PARTS[1] |= {"in_features": 10, "out_features": 3, "rank": 2}
EXAMPLES: dict[str, list[dict[str, Any]]] = {
    "kronecker_linear": [fields | {"bias": bias} for fields in FACTORS for bias in (True, False)],
    "kronecker_embedding": [fields | {"padding_idx": None} for fields in FACTORS] + [FACTORS[0] | {"padding_idx": 1}],
    "nested_kronecker_embedding": [{key: spec[key] for key in spec if key != "kind"} for spec in NESTED],
    "grouped_embedding": [{key: spec[key] for key in spec if key != "kind"} for spec in GROUPED],
    "factored_head": [
        {"table": table, "bias": bias} for table in (*TABLES, *NESTED, *GROUPED) for bias in (True, False)
    ],
    "fused_linear": [{"parts": PARTS, "bias": bias} | more for bias in (True, False) for more in ({}, {"runs": 3})],
    "low_rank_linear": [
        {"in_features": n, "out_features": m, "rank": rank, "bias": bias}
        for m, n, rank, bias in [(5, 3, 2, True), (3, 5, 3, False), (4, 4, 1, True)]
    ],
    "submatrix_linear": [
        {"in_features": n, "out_features": m, "rows": rows, "columns": columns, "bias": bias}
        for m, n, rows, columns, bias in [
            (5, 4, 2, 3, True),
            (5, 4, 3, 4, False),
            (3, 4, 3, 2, True),
            (3, 3, 3, 3, False),
        ]
    ],
    "tensor_train_linear": [
        {"modes": [[2, 3], [1, 2], [3, 1]], "ranks": [2, 3], "bias": True},
        {"modes": [[1, 3], [2, 2]], "ranks": [4], "bias": False},
        {"modes": [[3, 2], [2, 1]], "ranks": [1], "bias": True},
        {"modes": [[4, 3]], "ranks": [], "bias": True},
    ],
    "low_rank_sparse_linear": [
        {"in_features": n, "out_features": m, "rank": rank, "rows": rows, "bias": bias}
        for m, n, rank, rows, bias in [(5, 3, 2, 2, True), (3, 5, 1, 1, False), (4, 4, 3, 4, True)]
    ],
    "monarch_linear": [
        {"in_features": n, "out_features": m, "blocks": blocks, "rank": rank, "bias": bias}
        for m, n, blocks, rank, bias in [
            (6, 4, 2, 1, True),
            (4, 8, 4, 2, False),
            (3, 5, 1, 2, True),
            (3, 6, 3, 1, True),
        ]
    ],
    "quantized_linear": [{"in_features": 4, "out_features": 3, "bias": bias} for bias in (True, False)],
    "quantized_embedding": [{"num_embeddings": 5, "embedding_dim": 4, "padding_idx": padding} for padding in (None, 1)],
    "tensor_train_embedding": [
        {"num_embeddings": 5, "modes": [2, 3, 2], "ranks": [2, 1], "padding_idx": None},
        {"num_embeddings": 4, "modes": [2, 2], "ranks": [3], "padding_idx": 1},
        {"num_embeddings": 1, "modes": [3], "ranks": [], "padding_idx": None},
    ],
}
KINDS = [kind for kind, spec in SPECS.items() if issubclass(spec, StructuredSpec)]


def spec_of(kind: str, fields: dict[str, Any]) -> StructuredSpec:
    return parse_spec({"kind": kind, **fields}, StructuredSpec, place="the example")


CASES = [spec_of(kind, fields) for kind, examples in EXAMPLES.items() for fields in examples]


def built(spec: StructuredSpec, *, dtype: torch.dtype = torch.float64) -> StructuredLayer:
    return filled(spec.build(dtype=dtype))


def filled(layer: StructuredLayer) -> StructuredLayer:
    generator = torch.Generator().manual_seed(0)
    for parameter in layer.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter.dtype)
    for order in layer.buffers():
        order.copy_(torch.randperm(len(order), generator=generator))
    return layer


def an_input(layer: StructuredLayer, *, batch: tuple[int, ...] = (2, 3)) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    twin = layer.to_dense()
    if isinstance(twin, nn.Embedding):
        return torch.randint(twin.num_embeddings, batch, generator=generator)
    assert isinstance(twin, nn.Linear)
    dtype = twin.weight.dtype
    return torch.randn(*batch, twin.in_features, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


def assert_computes_as_its_dense_twin(layer: StructuredLayer, *, batch: tuple[int, ...] = (2, 3)) -> None:
    """Compare outputs and input gradients with the twin, parameter gradients with finite differences."""
    given, twin = an_input(layer, batch=batch), layer.to_dense()
    output, expected = layer(given), twin(given)
    assert output.dtype == expected.dtype
    torch.testing.assert_close(output, expected)
    names, values = zip(*layer.named_parameters(), strict=True)

    def answer(x: torch.Tensor, *parameters: torch.Tensor) -> Any:
        return functional_call(layer, dict(zip(names, parameters, strict=True)), x)

    assert gradcheck(answer, (given, *values))
    if given.requires_grad:
        weight = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
        ours, theirs = (torch.autograd.grad(y, given, weight)[0] for y in (output, expected))
        torch.testing.assert_close(ours, theirs)


def test_every_kind_has_examples() -> None:
    assert set(EXAMPLES) == set(KINDS)


@pytest.mark.parametrize("spec", CASES, ids=repr)
def test_it_computes_as_its_dense_twin(spec: StructuredSpec) -> None:
    assert_computes_as_its_dense_twin(built(spec))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [(), (1,), (0, 3), (2, 1, 3)], ids=str)
def test_any_leading_dimensions_do(kind: str, batch: tuple[int, ...]) -> None:
    layer = built(spec_of(kind, EXAMPLES[kind][0]))
    given = an_input(layer, batch=batch)
    torch.testing.assert_close(layer(given), layer.to_dense()(given))


@pytest.mark.parametrize("kind", KINDS)
def test_a_strided_input_does(kind: str) -> None:
    layer = built(spec_of(kind, EXAMPLES[kind][0]))
    given = an_input(layer, batch=(4, 3)).transpose(0, 1)
    torch.testing.assert_close(layer(given), layer.to_dense()(given))


@pytest.mark.parametrize("spec", CASES, ids=repr)
def test_mixed_precision_gives_the_number_format_of_the_twin(spec: StructuredSpec) -> None:
    layer = built(spec, dtype=torch.float32)
    given, twin = an_input(layer), layer.to_dense()
    with torch.autocast("cpu", torch.bfloat16):
        output, expected = layer(given), twin(given)
    assert output.dtype == expected.dtype
    torch.testing.assert_close(output, expected, atol=0.3, rtol=0.1)


@pytest.mark.parametrize("spec", CASES, ids=repr)
def test_its_spec_and_state_make_it_again(spec: StructuredSpec) -> None:
    layer = built(spec)
    again = parse_spec(json.loads(json.dumps(layer.spec.model_dump(mode="json"))), StructuredSpec, place="its JSON")
    copy = again.build(dtype=torch.float64)
    copy.load_state_dict(layer.state_dict())
    given = an_input(layer)
    assert again == copy.spec == layer.spec == spec
    assert repr(copy) == repr(layer)
    assert torch.equal(copy(given), layer(given))


@pytest.mark.parametrize("spec", CASES, ids=repr)
def test_it_can_be_built_without_memory(spec: StructuredSpec) -> None:
    layer = spec.build(device="meta", dtype=torch.bfloat16)
    assert all(parameter.is_meta and parameter.dtype == torch.bfloat16 for parameter in layer.parameters())
    assert {name: value.shape for name, value in layer.state_dict().items()} == {
        name: value.shape for name, value in built(spec).state_dict().items()
    }


@pytest.mark.parametrize("spec", CASES, ids=repr)
def test_it_counts_what_it_stores(spec: StructuredSpec) -> None:
    layer = built(spec)
    orders = sum(order.numel() for order in layer.buffers())
    stored = sum(value.numel() for value in layer.state_dict().values()) - orders
    assert layer.parameter_count == spec.parameters == stored
    order_bytes = sum(order.nbytes for order in layer.buffers())
    assert layer.byte_count == 8 * stored + order_bytes
    assert built(spec, dtype=torch.bfloat16).byte_count == 2 * stored + order_bytes


@pytest.mark.parametrize("spec", CASES, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_its_spec_names_the_tensors_that_it_stores(spec: StructuredSpec, dtype: torch.dtype) -> None:
    stored, model = spec.build(dtype=dtype).state_dict(), TensorFormat.of(dtype)
    assert {name: tensor.shape for name, tensor in spec.tensors.items()} == {
        name: tuple(value.shape) for name, value in stored.items()
    }
    assert {name: tensor.bytes(model) for name, tensor in spec.tensors.items()} == {
        name: value.nbytes for name, value in stored.items()
    }
    assert spec.bytes(model) == sum(value.nbytes for value in stored.values())


@pytest.mark.parametrize("spec", CASES, ids=repr)
def test_its_spec_has_the_size_of_its_twin(spec: StructuredSpec) -> None:
    assert spec.matrix == tuple(built(spec).to_dense().weight.shape)


@pytest.mark.parametrize("spec", [spec for spec in CASES if not isinstance(spec, TableSpec)], ids=repr)
def test_it_counts_the_operations_of_its_products(spec: StructuredSpec) -> None:
    layer = built(spec)
    given = an_input(layer, batch=(1,))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        layer(given)
    assert layer.flops_per_token == counter.get_total_flops()


@pytest.mark.parametrize("kind", KINDS)
def test_it_does_not_pass_for_a_dense_layer(kind: str) -> None:
    layer = built(spec_of(kind, EXAMPLES[kind][0]))
    assert not isinstance(layer, nn.Linear | nn.Embedding)
    assert layer.spec.kind == kind


class Forgetful(KroneckerLinear):
    """Leaves the last term out."""

    def factors(self) -> tuple[torch.Tensor, torch.Tensor]:
        left, right = super().factors()
        return left, right * (torch.arange(self.terms)[:, None, None] < self.terms - 1)

    def dense_weight(self) -> torch.Tensor:
        return sum(torch.kron(a, b) for a, b in zip(*super().factors(), strict=True))


class Detached(KroneckerLinear):
    """Gives the right outputs and no gradient to its left factors."""

    def factors(self) -> tuple[torch.Tensor, torch.Tensor]:
        left, right = super().factors()
        return left.detach(), right


@pytest.mark.parametrize("broken", [Forgetful, Detached])
def test_a_broken_layer_is_noticed(broken: type[KroneckerLinear]) -> None:
    layer = filled(broken(KroneckerLinearSpec(left=(3, 2), right=(2, 5), terms=2), dtype=torch.float64))
    with pytest.raises((AssertionError, RuntimeError)):
        assert_computes_as_its_dense_twin(layer)
