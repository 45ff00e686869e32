"""Adapters, quantized weights and models in folders below: refused in a sentence, by every command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import kronpress
from kronpress import KronpressError
from kronpress.cli import app
from kronpress.run.execution import execute
from kronpress.run.recipe import read_recipe
from tests.tiny import save_tiny


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_tiny(tmp_path / "theirs")


def edit_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def commands(folder: Path) -> list[list[str]]:
    name, out = str(folder), str(folder.parent / "out")
    opening = [["inspect", name], ["evaluate", name], ["generate", name], ["export", name, "--out", out]]
    return [*opening, ["compress", name, "--out", out], ["run", "halve-ffn", "-o", f"model={name}", "--out", out]]


def refusals(folder: Path) -> set[str]:
    """What the commands say, each of which must fail with a sentence and leave nothing behind."""
    messages: set[str] = set()
    for command in commands(folder):
        result = CliRunner().invoke(app, command)
        assert isinstance(result.exception, KronpressError), (command, result.output, result.exception)
        assert not (folder.parent / "out").exists()
        messages.add(str(result.exception))
    return messages


def test_an_adapter_is_refused_by_every_command(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    (message,) = refusals(folder)
    assert message.startswith(f"{folder} holds an adapter (adapter_config.json)")
    assert "merge it first (peft: model.merge_and_unload())" in message


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"])
@pytest.mark.parametrize("alone", [True, False])
def test_a_folder_with_an_adapter_is_refused(folder: Path, name: str, alone: bool) -> None:
    if alone:
        shutil.rmtree(folder)
        folder.mkdir()
    (folder / name).write_bytes(b"{}")
    with pytest.raises(KronpressError, match=r"holds an adapter .* merge it first"):
        kronpress.load(folder)


def test_an_adapter_beside_a_gguf_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    (tmp_path / "adapter_config.json").write_text("{}")
    pytest.importorskip("gguf")
    with pytest.raises(KronpressError, match=r"holds an adapter .* merge it first"):
        kronpress.load(tmp_path / "model.gguf")


def test_a_snapshot_of_links_opens(folder: Path, tmp_path: Path) -> None:
    """As a hub's cache holds them."""
    (tmp_path / "snapshot").mkdir()
    for path in folder.iterdir():
        (tmp_path / "snapshot" / path.name).symlink_to(path)
    model, tokenizer = kronpress.load_with_tokenizer(tmp_path / "snapshot")
    assert model.config.model_type == "llama"
    assert tokenizer is not None


@pytest.mark.parametrize("below", ["0_Transformer", "text_encoder", "checkpoint"])
def test_a_model_in_a_folder_below_is_pointed_at(folder: Path, tmp_path: Path, below: str) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "modules.json").write_text("[]")
    folder.rename(tmp_path / "whole" / below)
    with pytest.raises(KronpressError, match=rf"whole has no config\.json, .*; did you mean .*whole/{below}\?"):
        kronpress.load(tmp_path / "whole")


METHODS: dict[str, dict[str, Any]] = {
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 128},
    "awq": {"quant_method": "awq", "bits": 4, "version": "gemm"},
    "bitsandbytes": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "compressed-tensors": {"quant_method": "compressed-tensors", "format": "pack-quantized"},
    "fp8": {"quant_method": "fp8", "weight_block_size": [128, 128]},
    "mxfp4": {"quant_method": "mxfp4"},
    "torchao": {"quant_method": "torchao", "quant_type": "int8_weight_only"},
    "hqq": {"quant_method": "hqq"},
    "quanto": {"quant_method": "quanto", "weights": "int8"},
    "of-tomorrow": {"quant_method": "of-tomorrow"},
    "an unnamed method": {},
}


@pytest.mark.parametrize("method", METHODS)
def test_quantized_weights_are_refused(folder: Path, method: str) -> None:
    for key in ("quantization_config", "compression_config"):
        edit_config(folder, **{"quantization_config": None, key: METHODS[method]})
        with pytest.raises(KronpressError, match=rf"theirs is quantized \({method}\).* needs unquantized weights"):
            kronpress.load(folder)


@pytest.mark.parametrize("method", ["gptq", "of-tomorrow"])
def test_every_command_says_so_in_one_sentence(folder: Path, method: str) -> None:
    edit_config(folder, quantization_config=METHODS[method])
    (message,) = refusals(folder)
    assert f"is quantized ({method})" in message
    assert "name the original model, or dequantize this one" in message


def test_a_recipe_with_a_quantized_base_leaves_no_run(folder: Path, tmp_path: Path) -> None:
    edit_config(folder, quantization_config=METHODS["awq"])
    with pytest.raises(KronpressError, match=r"is quantized \(awq\)"):
        execute(read_recipe("halve-ffn", overrides=[f"model={folder}"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("stored", [torch.int8, torch.uint8, torch.int32, torch.float8_e4m3fn], ids=str)
def test_quantized_weights_are_told_by_their_number_format(folder: Path, stored: torch.dtype) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    save_file(tensors | {name: tensors[name].to(stored)}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(KronpressError, match=rf"is quantized \('{name}' is \w+\)"):
        kronpress.load(folder)


@pytest.mark.parametrize("name", ["quantize_config.json", "quant_config.json", "hf_quant_config.json"])
def test_quantized_weights_are_told_by_the_files_beside_them(folder: Path, name: str) -> None:
    (folder / name).write_text("{}")
    with pytest.raises(KronpressError, match=rf"is quantized \({name}\)"):
        kronpress.load(folder)


def test_no_quantization_at_all_is_fine(folder: Path) -> None:
    edit_config(folder, quantization_config=None)
    kronpress.load(folder)
