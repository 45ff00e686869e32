"""The pooler of an encoder's file survives a masked-language-model head, factors, saving and a task's head."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertForPreTraining,
    BertModel,
    LlamaModel,
    PreTrainedModel,
    RobertaForMaskedLM,
    RobertaModel,
)

import kronpress
from kronpress import KronpressError
from kronpress.checkpoint import notes_of
from kronpress.evaluate import footprint
from kronpress.export import DenseExporter
from kronpress.factorize import Factorize
from kronpress.tasks import TASKS, with_head
from tests.conformance.test_families import build
from tests.tiny import bench, logits, save_tiny, tiny_bert, tiny_tokenizer


def as_published(folder: Path, *, architecture: str = "BertForMaskedLM") -> Path:
    """A file like that of bert-base-uncased: pooler and next-sentence head beside the masked-language-model head."""
    torch.manual_seed(0)
    save_tiny(folder, BertForPreTraining(tiny_bert().config))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": [architecture]}))
    return folder


def pooler_of(folder: Path) -> torch.Tensor:
    return load_file(folder / "model.safetensors")["bert.pooler.dense.weight"]


@pytest.mark.parametrize("architecture", ["BertForMaskedLM", "BertForPreTraining"])
def test_it_reaches_every_model_that_comes_of_the_file(architecture: str, tmp_path: Path) -> None:
    folder = as_published(tmp_path / "theirs", architecture=architecture)
    expected, teacher = pooler_of(folder), kronpress.load(folder)
    assert type(teacher).__name__ == "BertForMaskedLM"
    (text,) = notes_of(teacher)
    assert text.startswith("2 stored tensors have no place in BertForMaskedLM and are left out")
    assert text.endswith("the first being 'cls.seq_relationship.bias'")
    work = bench(teacher, tmp_path)
    Factorize(method={"name": "van_loan", "right": (1, 2)}, sites="all,embedding").run(work)
    student = work.student
    kronpress.save(teacher, tmp_path / "plain", tokenizer=tiny_tokenizer())
    kronpress.save(student, tmp_path / "factors", tokenizer=tiny_tokenizer())
    DenseExporter().write(student, tmp_path / "dense")
    opened = [kronpress.load(tmp_path / name) for name in ("plain", "factors", "dense")]
    for model in (teacher, student, *opened):
        assert torch.equal(model.bert.pooler.dense.weight, expected)
        headed = with_head(model, TASKS["mrpc"], tiny_tokenizer())
        assert torch.equal(headed.bert.pooler.dense.weight, expected)
        assert headed.bert.pooler.dense.weight.requires_grad
        assert with_head(model, TASKS["squad"], tiny_tokenizer()).bert.pooler is None
    assert torch.equal(logits(opened[1]), logits(student))
    assert footprint(opened[1]).parameters == footprint(student).parameters


def test_half_a_pooler_is_damage(tmp_path: Path) -> None:
    folder = as_published(tmp_path / "theirs")
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("bert.pooler.dense.bias")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(KronpressError, match=r"lacks 1 weights .* 'pooler\.dense\.bias'"):
        kronpress.load(folder)


def test_a_file_without_one_gets_none(tmp_path: Path) -> None:
    assert kronpress.load(save_tiny(tmp_path / "theirs", tiny_bert())).bert.pooler is None


def test_that_of_roberta_is_kept_too(tmp_path: Path) -> None:
    model: Any = build("roberta")
    assert isinstance(model, RobertaForMaskedLM)
    model.roberta.pooler = RobertaModel(model.config).pooler
    folder = save_tiny(tmp_path / "theirs", model)
    again = kronpress.load(kronpress.save(kronpress.load(folder), tmp_path / "again"))
    assert torch.equal(again.roberta.pooler.dense.weight, model.roberta.pooler.dense.weight)
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)  # positions are counted from its id
    headed: Any = with_head(again, TASKS["mrpc"], tokenizer)
    assert headed.roberta.pooler is None, "its classifier reads the first token itself"


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", ["bert", "llama", "gpt2"])
def test_a_config_that_names_no_class_keeps_the_head(name: str, tied: bool, tmp_path: Path) -> None:
    model: PreTrainedModel = build(name, tied=tied)
    folder = save_tiny(tmp_path / "theirs", model)
    config = json.loads((folder / "config.json").read_text())
    config.pop("architectures")
    (folder / "config.json").write_text(json.dumps(config))
    assert torch.equal(logits(kronpress.load(folder)), logits(model))


@pytest.mark.parametrize("model_class", [BertModel, LlamaModel])
def test_a_base_model_stays_one(model_class: Any, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "theirs", model_class(build(model_class.config_class.model_type).config))
    for architectures in ([model_class.__name__], None):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"architectures": architectures}))
        assert type(kronpress.load(folder)) is model_class
