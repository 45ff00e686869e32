from __future__ import annotations

import pytest
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

from kronpress.errors import KronpressError
from kronpress.families import FAMILIES, base_prefix, family_of, has_module, layout, replace_module
from tests.tiny import tiny_gpt2, tiny_llama


def test_an_unsupported_model_is_refused_with_the_supported_ones() -> None:
    sizes = {"d_model": 8, "d_ff": 8, "num_layers": 1, "num_heads": 2, "d_kv": 4, "vocab_size": 16}
    with pytest.raises(KronpressError, match=r"unknown model type 't5': .*bert, distilbert, .*gpt2, .*llama"):
        layout(T5ForConditionalGeneration(T5Config(**sizes)))


def test_a_compressed_model_is_of_the_family_of_its_base() -> None:
    model = tiny_llama()
    model.config.model_type = "kronpress_llama"
    assert family_of(model) is FAMILIES["llama"]


def test_the_prefix_is_that_of_the_base_model() -> None:
    assert base_prefix(tiny_gpt2()) == "transformer."
    assert base_prefix(tiny_gpt2().transformer) == ""


def test_a_module_is_replaced_where_it_is() -> None:
    model, ours = tiny_llama(), nn.Identity()
    replace_module(model, "model.layers.1.mlp.up_proj", module=ours)
    assert model.model.layers[1].mlp.up_proj is ours
    replace_module(model, "lm_head", module=ours)
    assert model.lm_head is ours


@pytest.mark.parametrize("path", ["model.layers.9.mlp.up_proj", "model.layers.0.mlp.nothing", "nothing"])
def test_nothing_is_put_where_nothing_was(path: str) -> None:
    model = tiny_llama()
    assert not has_module(model, path)
    with pytest.raises(KronpressError, match=f"the model has no module '{path}'"):
        replace_module(model, path, module=nn.Identity())
