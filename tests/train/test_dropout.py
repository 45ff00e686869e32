from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import DistilBertConfig, DistilBertModel, PreTrainedModel

from kronpress.distill import Distill
from kronpress.finetune.step import Finetune
from kronpress.train.dropout import dropping
from tests.tiny import tiny_bert, tiny_gpt2, tiny_llama


def tiny_distilbert(**rates: float) -> PreTrainedModel:
    config = DistilBertConfig(vocab_size=64, dim=16, hidden_dim=32, n_layers=2, n_heads=2, **rates)
    return DistilBertModel(config)


def outputs(model: PreTrainedModel) -> torch.Tensor:
    found: torch.Tensor = model(input_ids=torch.arange(4, 20)[None])[0].detach()
    return found


RATES: dict[str, tuple[str, ...]] = {
    "gpt2": ("resid_pdrop", "embd_pdrop", "attn_pdrop"),
    "gpt2, attention alone": ("attn_pdrop",),
    "bert": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
    "llama": ("attention_dropout",),
    "distilbert": ("dropout", "attention_dropout"),
}
BUILDS: dict[str, Callable[..., Any]] = {"gpt2": tiny_gpt2, "bert": tiny_bert, "llama": tiny_llama}


def model_with(name: str, rate: float) -> PreTrainedModel:
    build = BUILDS.get(name.split(",")[0], tiny_distilbert)
    torch.manual_seed(0)
    model: PreTrainedModel = build(**dict.fromkeys(RATES[name], rate))
    return model.train()


def drops(model: PreTrainedModel) -> bool:
    """Say whether two looks at the same differ."""
    return not torch.allclose(outputs(model), outputs(model))


@pytest.mark.parametrize("name", RATES)
def test_a_model_drops_what_is_asked_and_goes_back_to_its_own(name: str) -> None:
    model = model_with(name, 0.4)
    with dropping(model, 0.0):
        assert torch.allclose(outputs(model), outputs(model.eval()))
        model.train()
    with dropping(model, None):
        assert drops(model)
    with pytest.raises(KeyError), dropping(model, 0.0):
        raise KeyError
    assert drops(model)


@pytest.mark.parametrize("name", RATES)
@pytest.mark.parametrize("rate", [0, 0.0])
def test_a_model_without_dropout_can_drop(name: str, rate: float) -> None:
    model = model_with(name, rate)
    assert not drops(model)
    with dropping(model, 0.3):
        assert drops(model)
    assert not drops(model)


def test_text_is_read_without_and_tasks_with_the_models_own() -> None:
    assert Distill(tokens=64).dropout == 0
    assert Finetune(tasks="rte").dropout is None
