"""`kronpress quantize`: the short way to few bits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from kronpress.checkpoint import verify
from kronpress.cli import app
from kronpress.errors import KronpressError
from kronpress.layers import QuantizedEmbedding, quantized_tensors
from tests.tiny import TEXT, save_tiny, tiny_llama


def quantize(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["quantize", *map(str, arguments)], catch_exceptions=False)
    return result.output


def test_a_model_is_quantized_in_one_command(tmp_path: Path) -> None:
    save_tiny(tmp_path / "model")
    told = quantize(tmp_path / "model", "--bits", 4, "--group", 8, "--tables", 8, "--out", tmp_path / "small")
    assert "size on disk" in told
    assert verify(tmp_path / "small")["deviation"] == 0
    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "small")
    levels = {type(layer).__name__: tensor.grid for layer in opened.modules() for tensor in _own(layer)}
    assert {name: (grid.levels, grid.group) for name, grid in levels.items()} == {
        "QuantizedEmbedding": ("int8", 8),
        "QuantizedLinear": ("int4", 8),
    }
    assert isinstance(opened.get_input_embeddings(), QuantizedEmbedding)
    assert "<svg" in (tmp_path / "small" / "report.html").read_text()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_sizes_are_those_of_the_files_in_the_number_format_of_the_source(dtype: torch.dtype, tmp_path: Path) -> None:
    source = save_tiny(tmp_path / "model", tiny_llama().to(dtype))
    quantize(source, "--bits", 4, "--group", 8, "--out", tmp_path / "small")
    (report,) = (tmp_path / "small").glob("**/steps/00-quantize/report.json")
    record = json.loads(report.read_text())["record"]
    before, after = sum(record["parts_before"].values()), sum(record["parts"].values())
    files = [source / "model.safetensors", tmp_path / "small" / "kronpress.safetensors"]
    sizes = [sum(tensor.nbytes for tensor in load_file(path).values()) for path in files]
    assert [before, after] == sizes


def _own(layer: object) -> list[object]:
    return list(layer.quantized().values()) if hasattr(layer, "quantized") else []


def test_a_text_is_calibrated_on_and_measured(tmp_path: Path) -> None:
    save_tiny(tmp_path / "model")
    (tmp_path / "text.txt").write_text(TEXT * 4)
    asked = ["--bits", 3, "--group", "row", "--shift", "--data", tmp_path / "text.txt"]
    told = quantize(tmp_path / "model", *asked, "--out", tmp_path / "small")
    assert "vs. dense" in told
    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "small")
    assert {tensor.grid.levels for tensor in quantized_tensors(opened)} == {"uint3"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bits", 5, "--group", "row"], "can not do 5.0 bits without a shift; set bits to 1 or 1.58 or 2 or 3"),
        (["--bits", 4], "groups of 64 do not divide rows of 16; set group to row or tensor"),
        (["--bits", 1.58, "--group", "row", "--shift"], "can not do 1.58 bits with a shift"),
        (["--bits", 4, "--group", "column"], "group is 'column'"),
        (["--bits", 4, "--held-out", "x.txt"], "--held-out needs --data"),
    ],
)
def test_what_does_not_fit_loses_nothing(arguments: list[object], message: str, tmp_path: Path) -> None:
    save_tiny(tmp_path / "model")
    with pytest.raises(KronpressError, match=message):
        quantize(tmp_path / "model", *arguments, "--out", tmp_path / "small")
    assert not (tmp_path / "small" / "config.json").exists()
