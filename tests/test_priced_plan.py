"""A plan with a config weighs what the built model weighs: every number of the footprint, with nothing built."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
)

from kronpress.checkpoint import adopt
from kronpress.errors import KronpressError
from kronpress.families import replace_module
from kronpress.footprint import footprint
from kronpress.layers import (
    FactoredHeadSpec,
    FusedLinearSpec,
    KroneckerEmbeddingSpec,
    KroneckerLinearSpec,
    LayerSpec,
    LowRankLinearSpec,
    LowRankSparseLinearSpec,
    MonarchLinearSpec,
    NestedKroneckerEmbeddingSpec,
    TensorTrainLinearSpec,
)
from kronpress.linalg import paired_modes
from kronpress.plan import Plan
from kronpress.records import Footprint
from tests.tiny import factorized, tiny_bert, tiny_gpt2, tiny_llama

HEAD = 50257 * 768
LLAMA_1B = LlamaConfig(
    hidden_size=2048,
    num_hidden_layers=16,
    num_attention_heads=32,
    num_key_value_heads=8,
    intermediate_size=8192,
    vocab_size=128256,
    tie_word_embeddings=True,
    dtype="bfloat16",
)
DENSE: dict[str, tuple[Any, PreTrainedConfig, int]] = {
    "GPT-2": (GPT2LMHeadModel, GPT2Config(), 124_439_808),
    "GPT-2 untied": (GPT2LMHeadModel, GPT2Config(tie_word_embeddings=False), 124_439_808 + HEAD),
    "BERT-base": (BertForMaskedLM, BertConfig(), 109_514_298),
    "BERT-base without head": (BertModel, BertConfig(architectures=["BertModel"]), 109_482_240),
    "Llama 1B": (LlamaForCausalLM, LLAMA_1B, 1_235_814_400),
    "Llama 7B": (LlamaForCausalLM, LlamaConfig(), 6_738_415_616),
}


def on_meta(model_class: Any, config: PreTrainedConfig) -> PreTrainedModel:
    with torch.device("meta"):
        model: PreTrainedModel = model_class(copy.deepcopy(config))
    return model.to(config.dtype or torch.float32)


def in_memory(size: Footprint) -> Footprint:
    """Return the size of a model that is in no file."""
    return replace(size, bytes_on_disk=None)


@pytest.fixture
def no_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """See to it that no module is made."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a module was built")

    monkeypatch.setattr(nn.Module, "__init__", refuse)


@pytest.mark.parametrize("name", DENSE)
def test_dense_models(name: str, no_modules: None) -> None:
    _, config, parameters = DENSE[name]
    size = footprint(Plan(), config)
    assert size.parameters == size.parameters_effective == parameters
    with pytest.raises(AssertionError, match="a module was built"):
        nn.Linear(1, 1)


@pytest.mark.parametrize("name", DENSE)
def test_dense_models_are_measured_alike(name: str) -> None:
    model_class, config, _ = DENSE[name]
    priced, measured = in_memory(footprint(Plan(), config)), footprint(on_meta(model_class, config))
    if config.dtype is None:
        assert priced == measured
    else:  # where the frequencies of the positions stay in float32, which `to` has rounded
        frequencies = 2 * 2 * (config.hidden_size // config.num_attention_heads // 2)
        assert priced.bytes_in_memory == measured.bytes_in_memory + frequencies


def krony(left: tuple[int, int], right: tuple[int, int]) -> dict[str, LayerSpec]:
    up = KroneckerLinearSpec(left=left, right=right)
    down = KroneckerLinearSpec(left=left[::-1], right=right[::-1])
    return {f"transformer.h.{i}.mlp.{path}": spec for i in range(12) for path, spec in (("c_fc", up), ("c_proj", down))}


TABLE = KroneckerEmbeddingSpec(left=(50257, 384), right=(1, 2))


def kngpt2() -> dict[str, LayerSpec]:
    """Return the odd blocks and the embedding by halves, as KnGPT2 has them."""
    half = KroneckerLinearSpec(left=(384, 768), right=(2, 1), bias=False)
    modules: dict[str, LayerSpec] = {"transformer.wte": TABLE}
    for i in range(1, 12, 2):
        modules[f"transformer.h.{i}.attn.c_attn"] = FusedLinearSpec(parts=(half,) * 3)
        modules[f"transformer.h.{i}.attn.c_proj"] = KroneckerLinearSpec(left=(384, 768), right=(2, 1))
        modules[f"transformer.h.{i}.mlp.c_fc"] = KroneckerLinearSpec(left=(1536, 768), right=(2, 1))
        modules[f"transformer.h.{i}.mlp.c_proj"] = KroneckerLinearSpec(left=(768, 1536), right=(1, 2))
    return modules


def tensor_trains(rank: int) -> dict[str, LayerSpec]:
    """Return the feed-forward blocks as the tensor-train GPT-2 has them, without biases."""
    up, down = (
        TensorTrainLinearSpec(modes=paired_modes(matrix, at_least=rank), ranks=(rank,) * 4, bias=False)
        for matrix in ((3072, 768), (768, 3072))
    )
    return {f"transformer.h.{i}.mlp.{path}": spec for i in range(12) for path, spec in (("c_fc", up), ("c_proj", down))}


def test_published_systems() -> None:
    assert footprint(Plan(modules=tensor_trains(16)), GPT2Config()).parameters == 68_085_504
    size = footprint(Plan(modules=krony((3072, 384), (1, 2))), GPT2Config())
    assert size.parameters == 96_128_304
    assert footprint(Plan(modules=krony((1536, 384), (2, 2))), GPT2Config()).parameters == 81_972_576
    size = footprint(Plan(modules=kngpt2()), GPT2Config())
    assert (size.parameters, size.parameters_without_head) == (122_504_906, 83_907_530)
    size = footprint(Plan(modules=kngpt2() | {"lm_head": FactoredHeadSpec(table=TABLE)}), GPT2Config())
    assert size.parameters == size.parameters_without_head == 83_907_530


def llama_plan() -> dict[str, LayerSpec]:
    low = LowRankLinearSpec(in_features=2048, out_features=8192, rank=512, bias=False)
    inner = KroneckerEmbeddingSpec(left=(64128, 512), right=(1, 2))
    table = NestedKroneckerEmbeddingSpec(inner=inner, right=(2, 2), column_order=True)
    gates = {f"model.layers.{i}.mlp.gate_proj": low for i in range(16)}
    return gates | {"model.embed_tokens": table, "lm_head": FactoredHeadSpec(table=table)}


def rows_and_blocks() -> dict[str, LayerSpec]:
    """Return feed-forward blocks with a low-rank product and kept rows, and with Monarch matrices."""
    sizes = {"in_features": 2048, "out_features": 8192, "rank": 512, "bias": False}
    gate, up = LowRankSparseLinearSpec(**sizes, rows=300), MonarchLinearSpec(**sizes | {"rank": 128}, blocks=4)
    mlps = [f"model.layers.{i}.mlp" for i in range(16)]
    return {f"{mlp}.{path}": spec for mlp in mlps for path, spec in (("gate_proj", gate), ("up_proj", up))}


PLANS: dict[str, tuple[Any, PreTrainedConfig, dict[str, LayerSpec]]] = {
    "Krony-PT": (GPT2LMHeadModel, GPT2Config(), krony((3072, 384), (1, 2))),
    "tensor trains": (GPT2LMHeadModel, GPT2Config(), tensor_trains(16)),
    "KnGPT2": (GPT2LMHeadModel, GPT2Config(), kngpt2()),
    "KnGPT2 tied": (GPT2LMHeadModel, GPT2Config(), kngpt2() | {"lm_head": FactoredHeadSpec(table=TABLE)}),
    "Llama 1B": (LlamaForCausalLM, LlamaConfig(**LLAMA_1B.to_dict() | {"dtype": None}), llama_plan()),
    "rows and blocks": (LlamaForCausalLM, LlamaConfig(**LLAMA_1B.to_dict() | {"dtype": None}), rows_and_blocks()),
}


@pytest.mark.parametrize("name", PLANS)
def test_plans_are_measured_alike(name: str) -> None:
    model_class, config, modules = PLANS[name]
    model = on_meta(model_class, config)
    for path, spec in modules.items():
        replace_module(model, path, module=spec.build(device="meta"))
    adopt(model)  # which ties what is tied
    assert in_memory(footprint(Plan(modules=modules), config)) == footprint(model)
    assert Plan.of(model).modules == modules


@pytest.mark.parametrize("build", [tiny_llama, tiny_gpt2, tiny_bert])
@pytest.mark.parametrize("sites", ["all,embedding,head", "feed_forward", "embedding", "head"])
def test_the_plan_of_a_model_weighs_what_it_weighs(build: Any, sites: str, tmp_path: Path) -> None:
    model = factorized(build(), tmp_path, sites=sites)
    assert in_memory(footprint(Plan.of(model), model.config)) == footprint(model)


def test_fewer_blocks_and_narrower_ones() -> None:
    sizes = {"num_hidden_layers": 3, "intermediate_size": 24, "hidden_size": 16, "vocab_size": 40}
    config = LlamaConfig(**sizes, num_attention_heads=4)
    smaller = LlamaConfig(**sizes | {"num_hidden_layers": 2, "intermediate_size": 10}, num_attention_heads=4)
    planned = footprint(Plan(blocks=(0, 2), widths=10), config)
    assert in_memory(planned) == footprint(on_meta(LlamaForCausalLM, smaller))
    ragged = footprint(Plan(widths=(24, 12, 6)), config)
    assert footprint(Plan(), config).parameters - ragged.parameters == 3 * 16 * (12 + 18)


def test_a_plan_of_another_model_is_refused() -> None:
    up = "transformer.h.0.mlp.c_fc"
    low = LowRankLinearSpec(in_features=768, out_features=768, rank=2)
    with pytest.raises(KronpressError, match=rf"'{up}' describes a matrix of 768 × 768 .* one of 3072 × 768"):
        footprint(Plan(modules={up: low}), GPT2Config())
    with pytest.raises(KronpressError, match=r"names the module 'h.12.mlp.c_fc', and the model has none"):
        footprint(Plan(modules={"h.12.mlp.c_fc": low}), GPT2Config())
    with pytest.raises(KronpressError, match="describes a token table, and the model has a linear layer"):
        footprint(Plan(modules={up: TABLE}), GPT2Config())
    other = KroneckerEmbeddingSpec(left=(50257, 768), right=(1, 1))
    with pytest.raises(KronpressError, match="are tied, and their factors have other shapes"):
        footprint(Plan(modules={"transformer.wte": TABLE, "lm_head": FactoredHeadSpec(table=other)}), GPT2Config())
