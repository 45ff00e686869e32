"""Adapters on layers with factors: with peft itself where it is installed, and what is told without it."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

import kronpress
from kronpress import KronpressError, adapters
from kronpress.checkpoint import save, structured_layers
from kronpress.factorize import Factorize
from tests.tiny import bench, factorized, logits, some_ids, tiny_bert, tiny_gpt2, tiny_llama

BUILDERS: list[Callable[[], PreTrainedModel]] = [tiny_llama, tiny_gpt2, tiny_bert]


@pytest.fixture(params=BUILDERS)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return save(factorized(request.param(), tmp_path), tmp_path / "checkpoint")


@pytest.fixture
def partly(tmp_path: Path) -> PreTrainedModel:
    """A model with factors in the feed-forward blocks alone."""
    work = bench(tiny_llama(), tmp_path)
    Factorize(method={"name": "van_loan", "right": (2, 2)}, sites="feed_forward").run(work)
    return kronpress.load(save(work.student, tmp_path / "checkpoint"))


class Adapter(nn.Module):
    """What peft puts around a layer, as far as kronpress looks at it."""

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer


@pytest.fixture
def peft_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft.tuners.tuners_utils", SimpleNamespace(BaseTunerLayer=Adapter))


def adapt(model: Any, *names: str) -> None:
    for block in model.model.layers:
        for part in (block.self_attn, block.mlp):
            for name in names:
                if hasattr(part, name):
                    setattr(part, name, Adapter(getattr(part, name)))


def test_the_targets_are_all_linear_layers_but_the_head(folder: Path) -> None:
    model = kronpress.load(folder)
    targets = set(adapters.linear_layers(model))
    factored = {path for path in structured_layers(model) if path.split(".")[-1] not in ("wte", "embed_tokens")}
    heads = {"lm_head", "cls.predictions.decoder", "bert.embeddings.word_embeddings"}
    assert targets >= factored - heads
    assert not targets & heads
    assert not any(".parts." in path for path in targets), "what is inside of a layer is no layer of the model"


@pytest.mark.usefixtures("peft_is_there")
def test_adapters_that_reach_no_layer_with_factors_are_told_once(partly: PreTrainedModel) -> None:
    adapt(partly, "q_proj", "v_proj")
    with pytest.warns(UserWarning, match=r"none of the 9 layers .* 'model\.layers\.0\.mlp\.gate_proj'.*lora_config"):
        partly.train()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        partly.train()


@pytest.mark.usefixtures("peft_is_there")
def test_adapters_on_some_layers_with_factors_are_meant(partly: PreTrainedModel) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        partly.train()  # no adapters yet
        adapt(partly, "q_proj", "down_proj")
        partly.train()
        partly.eval()


def test_without_peft_the_remedy_is_named(partly: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    for ask in (lambda: adapters.lora_config(partly), lambda: adapters.open_adapters(partly, "adapter")):
        with pytest.raises(KronpressError, match=r"adapters need peft: run `pip install peft`"):
            ask()


@pytest.mark.filterwarnings("ignore")
def test_adapters_train_and_open_again(folder: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model = kronpress.load(folder)
    expected, before = logits(model), {name: value.clone() for name, value in model.state_dict().items()}
    adapted = peft.get_peft_model(model, adapters.lora_config(model, r=2))
    assert torch.equal(logits(adapted), expected), "an adapter begins as nothing"
    optimizer = torch.optim.SGD([value for value in adapted.parameters() if value.requires_grad], lr=1.0)
    for _ in range(2):
        adapted.train()(input_ids=some_ids(), labels=some_ids()).loss.backward()
        assert all(value.grad is not None for value in adapted.parameters() if value.requires_grad)
        optimizer.step()
    trained = logits(adapted)
    assert not torch.equal(trained, expected)
    adapted.save_pretrained(tmp_path / "adapter")
    assert torch.equal(logits(adapters.open_adapters(kronpress.load(folder), tmp_path / "adapter")), trained)
    with pytest.raises(KronpressError, match="cannot be merged into the factors of a"):
        adapted.merge_and_unload()
    bare = adapted.unload()
    assert torch.equal(logits(bare), expected)
    assert all(torch.equal(value, before[name]) for name, value in bare.state_dict().items())


@pytest.mark.filterwarnings("ignore")
def test_what_looks_at_a_dense_weight_stops(partly: PreTrainedModel) -> None:
    peft = pytest.importorskip("peft")
    with pytest.raises(ValueError, match="use_dora"):
        peft.get_peft_model(partly, adapters.lora_config(partly, use_dora=True))
    with pytest.raises(KronpressError, match="computes with factors"):
        peft.get_peft_model(partly, adapters.lora_config(partly, init_lora_weights="pissa"))


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_all_linear_is_told(partly: PreTrainedModel) -> None:
    peft = pytest.importorskip("peft")
    adapted = peft.get_peft_model(partly, peft.LoraConfig(target_modules="all-linear"))
    with pytest.warns(UserWarning, match="none of the 9 layers"):
        adapted.train()
