from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from kronpress.errors import KronpressError
from kronpress.layers import (
    SPECS,
    DenseEmbeddingSpec,
    DenseLinearSpec,
    FactoredHeadSpec,
    KroneckerEmbeddingSpec,
    KroneckerLinearSpec,
    LayerSpec,
    StructuredSpec,
    TensorFormat,
    TensorSpec,
    parse_spec,
    spec_of,
)

BFLOAT16 = TensorFormat.of(torch.bfloat16)
DENSE = [
    DenseLinearSpec(in_features=4, out_features=6),
    DenseLinearSpec(in_features=4, out_features=6, bias=False),
    DenseEmbeddingSpec(num_embeddings=9, embedding_dim=4, padding_idx=2),
    DenseEmbeddingSpec(num_embeddings=9, embedding_dim=4),
]


@pytest.mark.parametrize("spec", DENSE, ids=repr)
def test_a_dense_layer_has_a_spec_too(spec: LayerSpec) -> None:
    layer = spec.build(dtype=torch.bfloat16)
    assert spec_of(layer) == spec
    assert parse_spec(json.loads(json.dumps(spec.model_dump(mode="json"))), LayerSpec, place="its JSON") == spec
    assert {name: tensor.shape for name, tensor in spec.tensors.items()} == {
        name: tuple(value.shape) for name, value in layer.state_dict().items()
    }
    assert spec.parameters == sum(value.numel() for value in layer.state_dict().values())
    assert spec.bytes(BFLOAT16) == sum(value.nbytes for value in layer.state_dict().values())
    assert spec.flops_per_token == (2 * 4 * 6 if isinstance(spec, DenseLinearSpec) else 0)


def test_other_modules_have_none() -> None:
    assert spec_of(torch.nn.LayerNorm(3)) is None


def test_bytes_follow_the_number_format_of_each_tensor() -> None:
    spec = KroneckerLinearSpec(left=(3, 2), right=(2, 5), terms=2, scales=True, orders=("column_order",))
    assert spec.parameters == 2 * (6 + 10) + 2 + 6
    assert spec.bytes() == 4 * spec.parameters + 2 * 10
    assert spec.bytes(BFLOAT16) == 2 * spec.parameters + 2 * 10
    assert TensorSpec((3, 5), TensorFormat("int3", 3)).bytes(BFLOAT16) == 6  # 45 bits


def test_the_models_own_number_format_is_not_written() -> None:
    spec = KroneckerLinearSpec(left=(3, 2), right=(2, 5))
    fields = spec.model_dump(mode="json")
    assert not {"stored", "inputs"} & set(fields)
    with pytest.raises(KronpressError, match=r"here \(kronecker_linear\): stored is 'int4'"):
        parse_spec(fields | {"stored": "int4"}, StructuredSpec, place="here")


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"bias": {"levels": "int4"}}, r"stored: 'bias' is none of left, right"),
        ({"left": {"levels": "int5"}}, r"stored.left.levels is 'int5'"),
        ({"left": {"levels": "int4", "group": 4}}, r"groups of 4 do not divide rows of 6; set group to row or tensor"),
        ({"left": {"levels": "int4", "groups": 4}}, r"unknown field 'stored.left.groups'"),
    ],
)
def test_a_grid_that_a_tensor_cannot_have_is_refused(stored: dict[str, Any], message: str) -> None:
    fields = {"kind": "kronecker_linear", "left": [3, 2], "right": [2, 5], "stored": stored}
    with pytest.raises(KronpressError, match=message):
        parse_spec(fields, StructuredSpec, place="here")


def test_the_kind_of_a_spec_is_checked_where_it_is_named() -> None:
    table: dict[str, Any] = {"kind": "kronecker_embedding", "left": [3, 2], "right": [1, 2]}
    head = FactoredHeadSpec(table=KroneckerEmbeddingSpec(left=(3, 2), right=(1, 2)))
    assert parse_spec({"kind": "factored_head", "table": table}, StructuredSpec, place="here") == head
    for wrong, message in [
        ({"kind": "dense_embedding", "num_embeddings": 3, "embedding_dim": 4}, "does not match this place"),
        (table | {"kind": "kronecker_embeding"}, "did you mean 'kronecker_embedding'"),
        ({"left": [3, 2]}, "unknown layer kind None"),
    ]:
        with pytest.raises(KronpressError, match=f"table: .*{message}"):
            parse_spec({"kind": "factored_head", "table": wrong}, StructuredSpec, place="here")


@pytest.mark.parametrize("kind", list(SPECS))
def test_a_spec_can_be_a_key(kind: str) -> None:
    assert SPECS[kind].kind == kind
    assert SPECS[kind].model_config["frozen"]


def test_equal_specs_are_one_key() -> None:
    assert len({*DENSE, *(spec.model_copy() for spec in DENSE)}) == len(DENSE)
