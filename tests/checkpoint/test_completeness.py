"""Names and shapes are compared before memory is allocated; nothing that a file holds is lost in silence."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import kronpress
from kronpress import KronpressError
from kronpress.checkpoint import notes_of
from kronpress.memory import peak_rss_bytes
from tests.checkpoint.test_foreign import edit_config
from tests.tiny import logits, save_tiny, tiny_bert, tiny_gpt2, tiny_llama, weights_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_tiny(tmp_path / "theirs")


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    (path,) = weights_files(folder)
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


SIZES = [
    ("llama", {"vocab_size": 30_000_000}, r"'model\.embed_tokens\.weight' has the shape \(264, 16\) where .*30000000"),
    ("llama", {"hidden_size": 10**9}, r"where config\.json calls for .*1000000000"),
    ("llama", {"intermediate_size": 10**12}, r"where config\.json calls for .*1000000000000"),
    ("llama", {"intermediate_size": 10**30}, "cannot open the model"),
    ("llama", {"num_hidden_layers": 100_000}, r"calls for num_hidden_layers: 100000 where the weights are \d+ tensors"),
    ("llama", {"num_hidden_layers": 10**30}, "calls for num_hidden_layers: 1000"),
    ("llama", {"num_hidden_layers": 4}, r"lacks 9 weights .* 'model\.layers\.3"),
    ("llama", {"num_hidden_layers": 2}, r"'model\.layers\.2\..*no place for"),
    ("llama", {"num_hidden_layers": 0}, "calls for num_hidden_layers: 0"),
    ("llama", {"num_attention_heads": 0}, "calls for num_attention_heads: 0, which must be at least 1"),
    ("bert", {"num_attention_heads": -1}, "calls for num_attention_heads: -1, which must be at least 1"),
    ("llama", {"num_labels": 10**9}, "calls for num_labels: 1000000000; at most"),
    ("gpt2", {"n_layer": 10**9}, "calls for n_layer: 1000000000"),
    ("gpt2", {"n_positions": 10**11}, r"wpe\.weight' has the shape"),
    ("bert", {"type_vocab_size": 10**11}, r"token_type_embeddings\.weight' has the shape"),
]


@pytest.mark.parametrize(("family", "fields", "message"), SIZES, ids=lambda value: str(value)[:40])
def test_impossible_sizes_are_refused_before_memory_is_allocated(
    family: str, fields: dict[str, int], message: str, tmp_path: Path
) -> None:
    build = {"llama": tiny_llama, "gpt2": tiny_gpt2, "bert": tiny_bert}[family]
    folder = save_tiny(tmp_path / "theirs", build())
    edit_config(folder, **fields)
    before = peak_rss_bytes()
    tracemalloc.start()
    try:
        with pytest.raises(KronpressError, match=message) as caught:
            kronpress.load(folder)
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()
    assert str(folder) in str(caught.value)
    assert peak_rss_bytes() - before < 2**27


def unusual(path: Path, kind: str) -> None:
    """Put something that is no regular file at a path."""
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "dangling link":
        path.symlink_to(path.parent / "nowhere")


NAMES = ["config.json", "model.safetensors", "tokenizer.json", "generation_config.json", "model.safetensors.index.json"]


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "dangling link"])
@pytest.mark.parametrize("name", NAMES)
def test_only_regular_files_are_opened(folder: Path, name: str, kind: str) -> None:
    unusual(folder / name, kind)
    with pytest.raises(KronpressError, match=rf"{name} is not a regular file"):
        kronpress.load_with_tokenizer(folder)


@pytest.mark.parametrize("name", ["kronpress.json", "kronpress_probe.safetensors"])
def test_nor_are_other_files_of_our_own(checkpoint: Path, name: str) -> None:
    unusual(checkpoint / name, "pipe")
    for door in (kronpress.load, kronpress.verify):
        with pytest.raises(KronpressError, match=rf"{name} is not a regular file"):
            door(checkpoint)


def test_a_pipe_is_no_gguf_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.gguf")
    with pytest.raises(KronpressError, match=r"model\.gguf is not a regular file"):
        kronpress.load(tmp_path / "model.gguf")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "generation_config.json"])
def test_an_enormous_text_file_is_refused(folder: Path, name: str) -> None:
    with (folder / name).open("r+b") as stream:
        stream.truncate(2**30)  # which takes no space
    with pytest.raises(KronpressError, match=rf"{name} has 1,073,741,824 bytes, more than"):
        kronpress.load(folder)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"hidden_size": ' + "9" * 5000 + "}"], ids=["deep", "digits"])
def test_a_config_that_python_cannot_parse_is_named(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(KronpressError, match=r"config\.json is not valid JSON"):
        kronpress.load(folder)


@pytest.mark.parametrize("text", ["[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 3}, "metadata": {}}'])
def test_a_damaged_index_is_named(tmp_path: Path, text: str) -> None:
    tiny_llama().save_pretrained(tmp_path, max_shard_size="8KB")
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(KronpressError, match=r"model\.safetensors\.index\.json"):
        kronpress.load(tmp_path)


def test_weights_under_another_name_are_pointed_at(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    with pytest.raises(KronpressError, match=r"has neither model\.safetensors nor .* rename its weights file"):
        kronpress.load(folder)


def test_a_distributed_checkpoint_is_never_unpickled(folder: Path) -> None:
    (folder / ".metadata").write_bytes(b"")
    with pytest.raises(KronpressError, match="a distributed checkpoint, which is a pickle"):
        kronpress.load(folder)


@pytest.mark.parametrize("name", ["model.layers.0.self_attn.q_proj.bias", "model.layers.3.mlp.up_proj.weight"])
def test_a_weight_of_a_block_that_is_not_read_is_refused(folder: Path, name: str) -> None:
    edit_weights(folder, lambda tensors: tensors.update({name: torch.ones(16)}))
    with pytest.raises(KronpressError, match=rf"holds the weight '{name}', which its config.json has no place for"):
        kronpress.load(folder)


def test_a_renamed_weight_is_refused(folder: Path) -> None:
    edit_weights(folder, lambda tensors: tensors.update({"model.nrm.weight": tensors.pop("model.norm.weight")}))
    with pytest.raises(KronpressError, match=r"lacks 1 weights .* 'model\.norm\.weight'"):
        kronpress.load(folder)


def test_other_weights_that_are_not_read_are_told(folder: Path) -> None:
    edit_weights(folder, lambda tensors: tensors.update({"value_head.weight": torch.ones(16)}))
    opened = kronpress.load(folder)
    (text,) = notes_of(opened)
    assert (
        text
        == "1 stored tensors have no place in LlamaForCausalLM and are left out, the first being 'value_head.weight'"
    )
    assert torch.equal(logits(opened), logits(tiny_llama()))


def test_a_checkpoint_of_ours_holds_nothing_that_is_not_read(checkpoint: Path) -> None:
    edit_weights(checkpoint, lambda tensors: tensors.update({"value_head.weight": torch.ones(16)}))
    with pytest.raises(KronpressError, match=r"holds 1 weights .* the first being 'value_head\.weight'"):
        kronpress.load(checkpoint)


def test_buffers_of_old_releases_are_no_damage(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "theirs", tiny_gpt2())
    buffers = {"transformer.h.0.attn.bias": torch.ones(1, 1, 4, 4), "transformer.h.0.attn.masked_bias": torch.ones(())}
    edit_weights(folder, lambda tensors: tensors.update(buffers))
    assert torch.equal(logits(kronpress.load(folder)), logits(tiny_gpt2()))


@pytest.mark.parametrize("name", ["model.norm.weight", "model.layers.1.mlp.up_proj.left"])
@pytest.mark.parametrize("stored", [torch.int8, torch.int64, torch.bool], ids=str)
def test_a_weight_stored_in_integers_is_refused(checkpoint: Path, name: str, stored: torch.dtype) -> None:
    edit_weights(checkpoint, lambda tensors: tensors.update({name: tensors[name].to(stored)}))
    with pytest.raises(KronpressError, match=rf"the weight '{name}' is stored as \w+, and kronpress reads F16"):
        kronpress.load(checkpoint)


def test_a_config_with_which_the_model_cannot_compute_is_named(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    config.pop("num_key_value_heads")
    (checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(KronpressError, match="cannot open the model"):
        kronpress.load(checkpoint)


def test_a_tokenizer_that_cannot_be_parsed_is_named(folder: Path) -> None:
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text.replace('"normalized"', '"norm!lized"', 1))
    with pytest.raises(KronpressError, match=r"theirs/tokenizer\.json holds no tokenizer that can be read"):
        kronpress.load_with_tokenizer(folder)
