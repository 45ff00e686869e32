"""Weights that are missing, renamed, of another shape or not read: no door of transformers opens such a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertForMaskedLM,
    BertModel,
    LlamaForCausalLM,
)

import kronpress
from kronpress import KronpressError
from kronpress.checkpoint import structured_layers
from tests.tiny import factorized, some_ids, tiny_bert, tiny_gpt2, tiny_llama

WEIGHTS = "kronpress.safetensors"
Tensors = dict[str, torch.Tensor]
QUERY = "model.layers.0.self_attn.q_proj"
DOORS: dict[str, Callable[[Path], Any]] = {
    "load": kronpress.load,
    "auto": AutoModelForCausalLM.from_pretrained,
    "concrete": LlamaForCausalLM.from_pretrained,
    "base": AutoModel.from_pretrained,
    "other shapes ignored": lambda folder: LlamaForCausalLM.from_pretrained(folder, ignore_mismatched_sizes=True),
    "classifier": AutoModelForSequenceClassification.from_pretrained,
}


def edit(folder: Path, change: Callable[[Tensors], object]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def edit_modules(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config["quantization_config"]["modules"])
    (folder / "config.json").write_text(json.dumps(config))


def rename(tensors: Tensors, name: str, new: str) -> None:
    tensors[new] = tensors.pop(name)


DAMAGE: dict[str, tuple[Callable[[Tensors], object], str]] = {
    "missing": (lambda t: t.pop(f"{QUERY}.left"), r"lacks 1 weights.*q_proj\.left'.*copy or download"),
    "missing scales": (lambda t: t.pop(f"{QUERY}.scales"), r"q_proj\.scales"),
    "renamed": (lambda t: rename(t, f"{QUERY}.left", f"{QUERY}.lefty"), r"q_proj\.left'"),
    "another shape": (lambda t: t.update({f"{QUERY}.left": torch.ones(1, 2, 3)}), r"q_proj\.left.* shape.*copy"),
    "one more": (lambda t: t.update({f"{QUERY}.middle": torch.ones(1)}), r"holds 1 weights.*q_proj\.middle'.*copy"),
    "a dense one beside": (lambda t: t.update({f"{QUERY}.weight": torch.ones(16, 16)}), r"q_proj\.weight'"),
    "missing norm": (lambda t: t.pop("model.norm.weight"), r"lacks 1 weights.*norm\.weight'"),
    "norm of another shape": (lambda t: t.update({"model.norm.weight": torch.ones(3)}), r"norm\.weight"),
    "one block more": (lambda t: t.update({"model.layers.3.mlp.up_proj.left": torch.ones(1)}), r"layers\.3"),
    "missing table": (lambda t: t.pop("model.embed_tokens.left"), r"lacks .*\.left'"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_refused_at_every_door(damage: str, checkpoint: Path) -> None:
    change, message = DAMAGE[damage]
    edit(checkpoint, change)
    for door in DOORS.values():
        with pytest.raises(KronpressError, match=message) as caught:
            door(checkpoint)
        assert str(checkpoint) in str(caught.value)


CONFIGS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a path too many": (lambda m: m.update({"model.layers.9.mlp.up_proj": m[QUERY]}), r"layers\.9\.mlp.*restore"),
    "a path of nonsense": (lambda m: m.update({"decoder.one": m[QUERY]}), r"names the module 'decoder\.one'.*restore"),
    "no path": (lambda m: m.update({"": m[QUERY]}), "names the module ''"),
    "a path inside of another": (lambda m: m.update({f"{QUERY}.left": m[QUERY]}), r"q_proj\.left"),
    "a path twice": (lambda m: m.update({"layers.0.self_attn.q_proj": m[QUERY]}), "twice"),
    "a path too few": (lambda m: m.pop(QUERY), r"q_proj\.weight"),
    "fewer terms": (lambda m: m[QUERY].update(terms=1), r"q_proj\.(left|right|scales).* shape"),
    "no scales": (lambda m: m[QUERY].update(scales=False), r"q_proj\.scales"),
    "an order": (lambda m: m[QUERY].update(orders=["row_order"]), r"q_proj\.row_order"),
    "a bias": (lambda m: m[QUERY].update(bias=True), r"q_proj\.bias"),
}


@pytest.mark.parametrize("change", CONFIGS)
def test_a_config_of_another_model_is_refused_at_every_door(change: str, checkpoint: Path) -> None:
    edit_modules(checkpoint, CONFIGS[change][0])
    for door in DOORS.values():
        with pytest.raises(KronpressError, match=CONFIGS[change][1]):
            door(checkpoint)


@pytest.mark.parametrize("value", [None, {"quant_method": "other"}, {"quant_method": "kronpress"}])
def test_a_config_without_layers_is_refused_at_every_door(value: dict[str, Any] | None, checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text()) | {"quantization_config": value}
    (checkpoint / "config.json").write_text(json.dumps(config))
    doors = {
        "their config": lambda path: LlamaForCausalLM.from_pretrained(path, config=AutoConfig.from_pretrained(path))
    }
    for door in (DOORS | doors).values():
        with pytest.raises((KronpressError, OSError)):
            door(checkpoint)


def test_the_index_and_the_files_belong_together(checkpoint: Path) -> None:
    (checkpoint / "kronpress.safetensors.index.json").unlink()
    for door in (AutoModelForCausalLM, LlamaForCausalLM):
        with pytest.raises((OSError, ValueError), match=r"kronpress\.safetensors\.index\.json"):
            door.from_pretrained(checkpoint)


def encoder(tmp_path: Path) -> Path:
    return kronpress.save(factorized(tiny_bert(), tmp_path), tmp_path / "encoder")


def test_a_head_may_be_new(tmp_path: Path) -> None:
    folder = encoder(tmp_path)
    for auto in (AutoModelForSequenceClassification, AutoModelForTokenClassification):
        torch.manual_seed(0)
        model = auto.from_pretrained(folder, num_labels=3)
        assert model.classifier.weight.isfinite().all()
        model.save_pretrained(tmp_path / auto.__name__)
        again = auto.from_pretrained(tmp_path / auto.__name__)
        assert torch.equal(again.classifier.weight, model.classifier.weight)
        other = auto.from_pretrained(tmp_path / auto.__name__, num_labels=5, ignore_mismatched_sizes=True)
        assert other.classifier.weight.shape[0] == 5
        edit(tmp_path / auto.__name__, lambda tensors: tensors.pop("classifier.weight"))
        with pytest.raises(KronpressError, match=r"lacks 1 weights.*classifier\.weight"):
            auto.from_pretrained(tmp_path / auto.__name__)


def test_a_head_may_be_put_on_a_base_model(tmp_path: Path) -> None:
    base = kronpress.load(encoder(tmp_path)).base_model
    base.save_pretrained(tmp_path / "base")
    model = AutoModelForMaskedLM.from_pretrained(tmp_path / "base")
    assert structured_layers(model.bert).keys() == structured_layers(base).keys()
    torch.testing.assert_close(model.bert(some_ids())[0], base.eval()(some_ids())[0])


def test_a_pooler_may_be_new_but_not_half(tmp_path: Path) -> None:
    folder = encoder(tmp_path)
    model = BertModel.from_pretrained(folder)
    assert model.pooler.dense.weight.isfinite().all()
    model.save_pretrained(tmp_path / "pooled")
    assert BertForMaskedLM.from_pretrained(tmp_path / "pooled").bert.pooler is None
    edit(tmp_path / "pooled", lambda tensors: tensors.pop("pooler.dense.bias"))
    with pytest.raises(KronpressError, match=r"pooler\.dense\.bias"):
        AutoModel.from_pretrained(tmp_path / "pooled")


def test_a_plain_model_with_a_config_of_layers_is_refused(tmp_path: Path) -> None:
    folder = kronpress.save(tiny_llama(), tmp_path / "plain")
    layers = kronpress.load(kronpress.save(factorized(tiny_llama(), tmp_path, sites="up"), tmp_path / "small"))
    config = layers.config.quantization_config
    with pytest.raises(ValueError, match=r"kronpress\.safetensors"):
        transformers.AutoModelForCausalLM.from_pretrained(folder, quantization_config=config)


def test_a_bias_that_looks_like_an_old_buffer_of_gpt2_is_not_left_unread(tmp_path: Path) -> None:
    folder = kronpress.save(factorized(tiny_gpt2(), tmp_path), tmp_path / "saved")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["modules"]["transformer.h.1.attn.c_attn"]["bias"] = False
    (folder / "config.json").write_text(json.dumps(config))
    for door in (transformers.AutoModelForCausalLM.from_pretrained, transformers.GPT2LMHeadModel.from_pretrained):
        with pytest.raises(KronpressError, match=r"the first being 'transformer\.h\.1\.attn\.c_attn\.bias'"):
            door(folder)
