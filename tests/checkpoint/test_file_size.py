"""A plan tells the size of the file to the byte, before anything is built."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel, GPT2Config, PreTrainedConfig, PreTrainedModel

from kronpress.checkpoint import save
from kronpress.families.dense_shapes import dense_shapes
from kronpress.footprint import footprint
from kronpress.layers import (
    GGUF_GRIDS,
    DenseLinearSpec,
    FactoredHeadSpec,
    Grid,
    LayerSpec,
    QuantizedEmbeddingSpec,
    QuantizedLinearSpec,
)
from kronpress.plan import Plan
from kronpress.quantizers import Scheme
from tests.quantizers.test_scheme import put
from tests.tiny import DIM, VOCABULARY, tiny_bert, tiny_gpt2, tiny_llama

BERT = BertConfig(architectures=["BertModel"], dtype="float32")
GPT2 = GPT2Config(dtype="float32")


def tiny_bert_base() -> PreTrainedModel:
    sizes = {"hidden_size": DIM, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    torch.manual_seed(0)
    return BertModel(BertConfig(vocab_size=VOCABULARY, max_position_embeddings=32, **sizes))


MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": tiny_llama,
    "llama, untied": lambda: tiny_llama(tied=False),
    "gpt2": tiny_gpt2,
    "bert": tiny_bert,
    "bert, base": tiny_bert_base,
}
SCHEMES = [
    None,
    Scheme.model_validate({"weights": 4, "tables": {"bits": 8, "group": "tensor"}}),
    Scheme.model_validate({"weights": {"bits": 2, "quantizer": "minmax", "group": 8, "scale": "float32"}}),
    Scheme.model_validate({"weights": 1.58, "tables": {"bits": 1, "scale": "bfloat16"}}),
]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("scheme", SCHEMES, ids=range(len(SCHEMES)))
def test_the_plan_of_a_model_has_the_size_of_its_file(name: str, scheme: Scheme | None, tmp_path: Path) -> None:
    model = MODELS[name]()
    model = model if scheme is None else put(model, scheme)
    save(model, tmp_path / "model")
    written = footprint(model, folder=tmp_path / "model")
    planned = footprint(Plan.of(model), model.config)
    assert planned.bytes_on_disk == written.bytes_on_disk
    assert planned.parameters == written.parameters


def on_grid(config: PreTrainedConfig, grid: Grid) -> Plan:
    """Return the plan of a model all of whose matrices and tables lie on a grid."""
    shapes = dense_shapes(config)
    modules: dict[str, LayerSpec] = {}
    for path, dense in shapes.layers.items():
        rows, columns = dense.matrix
        if isinstance(dense, DenseLinearSpec):
            modules[path] = QuantizedLinearSpec(
                in_features=columns, out_features=rows, bias=dense.bias, stored={"weight": grid}
            )
        else:
            modules[path] = QuantizedEmbeddingSpec(num_embeddings=rows, embedding_dim=columns, stored={"weight": grid})
    if shapes.head in modules:
        table = modules[shapes.embedding]
        assert isinstance(table, QuantizedEmbeddingSpec)
        modules[shapes.head] = FactoredHeadSpec(table=table)
    return Plan(modules=modules)


@pytest.mark.parametrize(
    ("config", "grid", "mebibytes"),
    [
        (BERT, Grid(levels="binary", group="tensor"), 13.6),
        (BERT, Grid(levels="binary", group="row"), 13.8),
        (BERT, GGUF_GRIDS["q1_0"], 15.2),
        (BERT, Grid(levels="int2"), 28.1),
        (GPT2, Grid(levels="int2"), 33.2),
        (GPT2, Grid(levels="int4"), 62.7),
    ],
    ids=repr,
)
def test_published_sizes_are_kept(config: PreTrainedConfig, grid: Grid, mebibytes: float) -> None:
    dense, planned = footprint(Plan(), config), footprint(on_grid(config, grid), config)
    assert planned.bytes_on_disk is not None
    assert planned.bytes_on_disk <= mebibytes * 2**20
    assert planned.parameters == dense.parameters


def test_a_binary_bert_is_31_times_smaller() -> None:
    dense = footprint(Plan(), BERT).bytes_on_disk
    binary = footprint(on_grid(BERT, Grid(levels="binary", group="tensor")), BERT).bytes_on_disk
    blocks = footprint(on_grid(BERT, GGUF_GRIDS["q1_0"]), BERT).bytes_on_disk
    assert dense is not None
    assert binary is not None
    assert blocks is not None
    assert round(dense / binary, 1) == 30.9
    assert round(dense / blocks, 1) == 27.5
