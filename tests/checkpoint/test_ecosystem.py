"""A compressed checkpoint in the hands of transformers."""

from __future__ import annotations

from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
)

import kronpress
from kronpress import KronpressError
from kronpress.checkpoint import structured_layers
from tests.tiny import DEPTH, factorized, logits, some_ids, tiny_bert, tiny_gpt2, tiny_llama


class Sentences(Dataset[dict[str, torch.Tensor]]):
    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = (torch.arange(12) * (index + 1)) % 264
        return {"input_ids": ids, "labels": ids}


def trainer(model: PreTrainedModel, folder: Path, **options: Any) -> Trainer:
    fields = {"max_steps": 4, "save_steps": 2, "per_device_train_batch_size": 4, "learning_rate": 1e-2}
    fixed = {"use_cpu": True, "report_to": "none", "logging_steps": 1, "disable_tqdm": True}
    quiet = {"dataloader_pin_memory": False}
    arguments = TrainingArguments(output_dir=str(folder), **(fields | fixed | quiet | options))
    return Trainer(model=model, args=arguments, train_dataset=Sentences(), eval_dataset=Sentences())


def test_the_trainer_trains_it_and_resumes(checkpoint: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    layers = {path: layer for path, layer in structured_layers(model).items() if path != "lm_head"}
    before = {path: layer.left.detach().clone() for path, layer in layers.items()}
    whole = trainer(model, tmp_path / "run")
    whole.train()
    losses = [line["loss"] for line in whole.state.log_history if "loss" in line]
    assert losses[-1] < losses[0]
    assert all(not torch.equal(before[path], layer.left) for path, layer in layers.items())
    assert model.lm_head.table is model.model.embed_tokens

    again = trainer(AutoModelForCausalLM.from_pretrained(checkpoint), tmp_path / "run")
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    for name, value in model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value), name


def test_what_the_trainer_saves_opens(checkpoint: Path, tmp_path: Path) -> None:
    run = trainer(AutoModelForCausalLM.from_pretrained(checkpoint), tmp_path / "run")
    run.train()
    run.save_model(str(tmp_path / "final"))
    expected = logits(run.model)
    assert torch.equal(logits(kronpress.load(tmp_path / "final")), expected)
    assert torch.equal(logits(kronpress.load(tmp_path / "run" / "checkpoint-4")), expected)


@pytest.mark.parametrize("shard", ["50GB", "8KB"])
def test_the_trainer_returns_to_the_best_weights(
    shard: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    save = partialmethod(type(model).save_pretrained, max_shard_size=shard)
    monkeypatch.setattr(type(model), "save_pretrained", save)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    options = {"eval_strategy": "steps", "eval_steps": 1, "save_steps": 1, "max_steps": 3, "learning_rate": 1.0}
    run = trainer(model, tmp_path / "run", load_best_model_at_end=True, **options)
    run.train()  # each step makes it worse
    best = kronpress.load(str(run.state.best_model_checkpoint))
    assert run.state.best_global_step < 3
    assert not torch.equal(model.state_dict()["model.norm.weight"], start["model.norm.weight"])
    for name, value in model.state_dict().items():
        assert torch.equal(best.state_dict()[name], value), name
    assert model.lm_head.table is model.model.embed_tokens


def test_the_trainer_does_not_resume_from_another_model(checkpoint: Path, tmp_path: Path) -> None:
    run = trainer(AutoModelForCausalLM.from_pretrained(checkpoint), tmp_path / "run")
    run.train()
    other = factorized(tiny_llama(), tmp_path, sites="up")
    kronpress.save(other, tmp_path / "other")
    again = trainer(AutoModelForCausalLM.from_pretrained(tmp_path / "other"), tmp_path / "run")
    with pytest.raises(KronpressError, match=r"checkpoint-2 (lacks|has) the weight"):
        again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))


def test_it_can_be_cast_after_it_was_opened(checkpoint: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    expected = logits(model)
    for cast in (model.half, model.bfloat16, model.float):
        assert cast() is model
        assert len({each.dtype for each in model.parameters()}) == 1
    assert model.dtype == torch.float32
    torch.testing.assert_close(logits(model), expected, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("build", [tiny_llama, tiny_gpt2, tiny_bert])
@torch.no_grad()
def test_it_gives_hidden_states_and_attentions(build: Any, tmp_path: Path) -> None:
    made = factorized(build(attn_implementation="eager"), tmp_path / "work")
    kronpress.save(made, tmp_path / "saved")
    again = kronpress.load(tmp_path / "saved")
    again.set_attn_implementation("eager")
    for model in (made, again):
        given = model(input_ids=some_ids(), output_hidden_states=True, output_attentions=True)
        assert (len(given.hidden_states), len(given.attentions)) == (DEPTH + 1, DEPTH)
        last = model.base_model(input_ids=some_ids()).last_hidden_state
        torch.testing.assert_close(given.hidden_states[-1], last)
        torch.testing.assert_close(given.attentions[0].sum(-1), torch.ones(2, 4, 12))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_classifier_is_put_on_a_compressed_encoder(tmp_path: Path) -> None:
    folder = kronpress.save(factorized(tiny_bert(), tmp_path), tmp_path / "encoder")
    classifier = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3)
    assert len(structured_layers(classifier)) == len(structured_layers(kronpress.load(folder))) - 1  # no head
    expected = logits(classifier)
    again = kronpress.load(kronpress.save(classifier, tmp_path / "classifier"))
    assert torch.equal(logits(again), expected)
    assert again.config.num_labels == 3
