from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import DistilBertConfig, DistilBertModel, PreTrainedModel

from kronpress.distill import Distill
from kronpress.distill.dropout import dropping
from kronpress.distill.finetune import Finetune
from tests.tiny import tiny_bert, tiny_gpt2, tiny_llama


def tiny_distilbert() -> PreTrainedModel:
    config = DistilBertConfig(vocab_size=64, dim=16, hidden_dim=32, n_layers=2, n_heads=2, dropout=0.4)
    return DistilBertModel(config)


MODELS: dict[str, Callable[[], Any]] = {
    "gpt2": lambda: tiny_gpt2(resid_pdrop=0.4, embd_pdrop=0.4, attn_pdrop=0.4),
    "gpt2, attention alone": lambda: tiny_gpt2(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.4),
    "bert": lambda: tiny_bert(hidden_dropout_prob=0.4, attention_probs_dropout_prob=0.4),
    "llama": lambda: tiny_llama(attention_dropout=0.4),
    "distilbert": tiny_distilbert,
}


def outputs(model: PreTrainedModel) -> torch.Tensor:
    found: torch.Tensor = model(input_ids=torch.arange(4, 20)[None])[0].detach()
    return found


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_a_model_drops_what_is_asked_and_goes_back_to_its_own(build: Callable[[], PreTrainedModel]) -> None:
    torch.manual_seed(0)
    model = build().eval()
    expected = outputs(model)
    model.train()
    with dropping(model, 0.0):
        torch.testing.assert_close(outputs(model), expected)
    for probability in (None, 0.3):
        with dropping(model, probability):
            assert not torch.allclose(outputs(model), outputs(model))
    with pytest.raises(KeyError), dropping(model, 0.0):
        raise KeyError
    assert not torch.allclose(outputs(model), outputs(model))


def test_text_is_read_without_and_tasks_with_the_models_own() -> None:
    assert Distill(tokens=64).dropout == 0
    assert Finetune(tasks="rte").dropout is None
