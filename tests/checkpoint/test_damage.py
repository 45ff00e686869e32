"""Damaged, incomplete and foreign folders: an error that names the place, never a model that looks whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertModel

import kronpress
from kronpress import KronpressError
from kronpress.checkpoint import Probe
from tests.tiny import save_tiny, some_ids, tiny_bert

WEIGHTS, CONFIG, PROBE = "kronpress.safetensors", "config.json", "kronpress_probe.safetensors"
Change = Callable[[dict[str, Any]], object]


def edit_config(folder: Path, change: Change) -> None:
    config = json.loads((folder / CONFIG).read_text())
    change(config)
    (folder / CONFIG).write_text(json.dumps(config))


def edit_weights(folder: Path, change: Change) -> None:
    path = next(folder / name for name in (WEIGHTS, "model.safetensors") if (folder / name).exists())
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize("length", [0, 4, 100, -1])
@pytest.mark.parametrize("name", [WEIGHTS, PROBE])
def test_a_file_cut_short_is_named(checkpoint: Path, name: str, length: int) -> None:
    content = (checkpoint / name).read_bytes()
    (checkpoint / name).write_bytes(content[:length])
    with pytest.raises(KronpressError, match=rf"{name}.* is damaged .*copy"):
        kronpress.load(checkpoint)


@pytest.mark.parametrize(
    "name", ["model.norm.weight", "model.layers.1.mlp.up_proj.left", "model.layers.0.self_attn.q_proj.scales"]
)
def test_a_missing_weight_is_named(checkpoint: Path, name: str) -> None:
    edit_weights(checkpoint, lambda tensors: tensors.pop(name))
    with pytest.raises(KronpressError, match=f"lacks 1 weights .* the first being '{name}'"):
        kronpress.load(checkpoint)


def test_a_weight_of_another_shape_is_named(checkpoint: Path) -> None:
    edit_weights(checkpoint, lambda tensors: tensors.update({"model.norm.weight": torch.ones(3)}))
    with pytest.raises(KronpressError, match=r"model\.norm\.weight"):
        kronpress.load(checkpoint)


EDITS: dict[str, tuple[Change, str]] = {
    "another left factor": (lambda c: modules(c)["model.layers.0.mlp.up_proj"].update(left=[24, 8]), "up_proj"),
    "a module left out": (lambda c: modules(c).pop("model.layers.0.mlp.up_proj"), "up_proj"),
    "an unknown kind": (lambda c: modules(c)["lm_head"].update(kind="monarch"), "unknown layer kind 'monarch'"),
    "an unknown field": (lambda c: modules(c)["lm_head"].update(bits=4), "bits"),
    "a field left out": (lambda c: modules(c)["lm_head"]["table"].pop("left"), "left"),
    "modules as a list": (lambda c: c["quantization_config"].update(modules=["lm_head"]), "modules"),
    "a later format": (lambda c: c["quantization_config"].update(format_version=3), "install a newer kronpress"),
    "another size": (lambda c: c.update(hidden_size=32), "model"),
    "another depth": (lambda c: c.update(num_hidden_layers=4), "lacks"),
    "fewer blocks": (lambda c: c.update(num_hidden_layers=2), "layers.2.*restore config.json"),
    "another theta": (lambda c: c.update(rope_parameters={"rope_type": "default", "rope_theta": 2.0}), "probe"),
    "another base": (lambda c: c.update(model_type="kronpress_t5"), "kronpress_t5"),
    "no base": (lambda c: c.pop("model_type"), "model_type"),
}


def modules(config: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = config["quantization_config"]["modules"]
    return found


@pytest.mark.parametrize("edit", list(EDITS))
def test_an_edited_config_is_noticed(checkpoint: Path, edit: str) -> None:
    change, expected = EDITS[edit]
    edit_config(checkpoint, change)
    with pytest.raises(KronpressError, match=expected) as caught:
        kronpress.load(checkpoint)
    assert str(checkpoint) in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "\udc80"])
def test_a_config_that_is_no_json_object_is_named(checkpoint: Path, text: str) -> None:
    (checkpoint / CONFIG).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(KronpressError, match=r"config\.json"):
        kronpress.load(checkpoint)


def test_a_folder_without_a_model_says_so(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(KronpressError, match=r"no model at .*nowhere: name a folder"):
        kronpress.load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(KronpressError, match=r"empty has no config\.json"):
        kronpress.load(tmp_path / "empty")
    with pytest.raises(KronpressError, match=r"no model at .*config\.json: name a folder"):
        kronpress.load(checkpoint / CONFIG)
    with pytest.raises(KronpressError, match="the GGUF file does not exist"):
        kronpress.load(tmp_path / "model.gguf")
    with pytest.raises(KronpressError, match="unknown bundled model 'smolm': did you mean 'smollm2-135m'"):
        kronpress.load("bundled:smolm")


def test_pickled_weights_are_never_read(checkpoint: Path) -> None:
    (checkpoint / WEIGHTS).rename(checkpoint / "pytorch_model.bin")
    with pytest.raises(KronpressError, match="never unpickles"):
        kronpress.load(checkpoint)


def test_a_shard_left_out_is_noticed(checkpoint: Path, tmp_path: Path) -> None:
    kronpress.load(checkpoint).save_pretrained(tmp_path / "shards", max_shard_size="8KB")
    next((tmp_path / "shards").glob("kronpress-00002*.safetensors")).unlink()
    with pytest.raises(KronpressError, match="kronpress-00002"):
        kronpress.load(tmp_path / "shards")


def test_a_missing_pooler_is_no_damage(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "bert", tiny_bert())
    edit_config(folder, lambda config: config.update(architectures=["BertModel"]))
    model = kronpress.load(folder)
    assert type(model).__name__ == "BertModel"
    assert model.pooler is None, "and none is made up"
    again = kronpress.load(kronpress.save(model, tmp_path / "again"))
    assert torch.equal(again(some_ids()).last_hidden_state, model(some_ids()).last_hidden_state)


def test_half_a_pooler_is_damage(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "bert", BertModel(tiny_bert().config))
    assert kronpress.load(folder).pooler is not None
    edit_weights(folder, lambda tensors: tensors.pop("pooler.dense.bias"))
    with pytest.raises(KronpressError, match=r"lacks 1 weights .* 'pooler\.dense\.bias'"):
        kronpress.load(folder)


@pytest.mark.parametrize("value", [0.0, float("nan"), 100.0])
def test_other_weights_deviate_from_the_probe(checkpoint: Path, value: float) -> None:
    edit_weights(checkpoint, lambda tensors: tensors["model.layers.1.mlp.up_proj.left"].fill_(value))
    with pytest.raises(KronpressError, match="deviate from the recorded probe"):
        kronpress.load(checkpoint)
    kronpress.load(checkpoint, verify=False)


def test_the_probe_of_another_model_is_noticed(checkpoint: Path, tmp_path: Path) -> None:
    other = kronpress.save(tiny_bert(), tmp_path / "other")
    (other / PROBE).rename(tmp_path / PROBE)
    shutil.copy(checkpoint / PROBE, other / PROBE)
    with pytest.raises(KronpressError, match="deviate from the recorded probe"):
        kronpress.load(other)
    probe = Probe(torch.arange(4)[None], torch.zeros(1, 4, 7))
    assert probe.deviation(tiny_bert()) == float("inf")
