"""The shapes that a config alone gives are those of the model that is built from it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from transformers import PreTrainedModel

from kronpress.errors import KronpressError
from kronpress.families import layout
from kronpress.families.architectures import ARCHITECTURES
from kronpress.families.dense_shapes import dense_shapes
from kronpress.layers import spec_of
from kronpress.registry import Shelf

DECODER = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4}
DECODER |= {"vocab_size": 40, "num_key_value_heads": 2}
ENCODER = {key: value for key, value in DECODER.items() if key != "num_key_value_heads"}
DISTILBERT = {"vocab_size": 40, "dim": 16, "hidden_dim": 24, "n_layers": 3, "n_heads": 4}
GPT2 = {"vocab_size": 40, "n_embd": 16, "n_layer": 3, "n_head": 4}
CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("gpt2", "GPT2", GPT2),
    ("gpt2", "GPT2", GPT2 | {"n_inner": 20, "tie_word_embeddings": False}),
    ("llama", "Llama", DECODER),
    ("llama", "Llama", DECODER | {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    ("llama", "Llama", DECODER | {"head_dim": 10}),
    ("mistral", "Mistral", DECODER),
    ("mistral", "Mistral", DECODER | {"head_dim": 8}),
    ("qwen2", "Qwen2", DECODER),
    ("qwen3", "Qwen3", DECODER | {"head_dim": 8, "attention_bias": True}),
    ("smollm3", "SmolLM3", DECODER | {"pad_token_id": None}),
    ("bert", "Bert", ENCODER),
    ("bert", "Bert", ENCODER | {"tie_word_embeddings": False, "type_vocab_size": 3}),
    ("roberta", "Roberta", ENCODER),
    ("distilbert", "DistilBert", DISTILBERT),
    ("distilbert", "DistilBert", DISTILBERT | {"tie_word_embeddings": False}),
]
HEADS = {"GPT2": "LMHeadModel"} | dict.fromkeys(["Bert", "Roberta", "DistilBert"], "ForMaskedLM")


def built(name: str, fields: dict[str, Any], *, base: bool = False) -> PreTrainedModel:
    config = getattr(transformers, f"{name}Config")(**fields)
    with torch.device("meta"):
        model: PreTrainedModel = getattr(transformers, name + ("Model" if base else HEADS.get(name, "ForCausalLM")))(
            config
        )
    config.architectures = [type(model).__name__]
    return model


def test_every_architecture_has_a_case() -> None:
    assert {model_type for model_type, _, _ in CASES} == set(ARCHITECTURES)


@pytest.mark.parametrize(("model_type", "name", "fields"), CASES, ids=str)
@pytest.mark.parametrize("base", [False, True])
def test_they_are_those_of_the_built_model(model_type: str, name: str, fields: dict[str, Any], base: bool) -> None:
    model = built(name, fields, base=base)
    shapes = dense_shapes(model.config)
    own = shapes.prefix if base else ""
    assert tuple(path.removeprefix(own) for path in shapes.blocks) == layout(model).block_paths
    layers = {path.removeprefix(own): spec for path, spec in shapes.layers.items()}
    assert {path: (spec_of(model.get_submodule(path))).matrix for path in layers} == {
        path: spec.matrix for path, spec in layers.items()
    }
    inside = tuple(f"{path}." for path in layers)
    stored = {f"{path}.{name}" for path, spec in layers.items() for name in spec.tensors}
    stored |= {name.removeprefix(own) for name in shapes.vectors}
    shared = {"cls.predictions.bias", "lm_head.bias"} if shapes.shared_bias else set()
    named = dict(model.named_parameters(remove_duplicate=False))
    assert stored == named.keys() - shared
    assert {name: tuple(named[name.removeprefix(own)].shape) for name in shapes.vectors} == {
        name: tensor.shape for name, tensor in shapes.vectors.items()
    }
    buffers = {name: (tuple(value.shape), value.nbytes) for name, value in model.named_buffers()}
    assert buffers == {
        name.removeprefix(own): (tensor.shape, tensor.bytes(tensor.format)) for name, tensor in shapes.buffers.items()
    }
    assert not any(name.startswith(inside) for name in buffers)


def test_a_family_without_shapes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kronpress.families.dense_shapes.ARCHITECTURES", Shelf("model type"))
    with pytest.raises(KronpressError, match="sizes of a llama model are not known from its config alone"):
        dense_shapes(transformers.LlamaConfig())


def test_what_a_config_does_not_say_is_refused() -> None:
    config = transformers.BertConfig(architectures=["BertForSequenceClassification"])
    with pytest.raises(KronpressError, match="sizes of a BertForSequenceClassification are not known"):
        dense_shapes(config)
    with pytest.raises(KronpressError, match="unknown model type"):
        dense_shapes(transformers.T5Config())
    with pytest.raises(KronpressError, match=r"blocks are 0, 12; the model has 12"):
        dense_shapes(transformers.GPT2Config(), blocks=(0, 12))
    with pytest.raises(KronpressError, match="2 widths for 12 blocks"):
        dense_shapes(transformers.GPT2Config(), widths=(1, 2))
