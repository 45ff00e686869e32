"""A model whose blocks stay in files is compressed to the same bits, and only where that is possible."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from kronpress.activations import progress, stream
from kronpress.activations.stream import BlockStream
from kronpress.errors import KronpressError
from kronpress.run import room
from kronpress.run.execution import execute
from kronpress.run.recipe import Recipe, make_recipe
from tests.tiny import TEXT, save_tiny, tiny_bert, tiny_gpt2, tiny_llama, weights_files

FIT = {"tokens": 1024, "window": 64}
WHITENED = {"step": "factorize", "form": "low_rank", "sites": "attention,up,down", "fit": {"name": "whitened", **FIT}}
NEAREST = {"step": "factorize", "form": "low_rank", "sites": "feed_forward"}
STEPS: dict[str, dict[str, Any]] = {
    "neurons": {"step": "prune", "fit": FIT},
    "products of neurons": {"step": "prune", "fit": FIT, "form": "kronecker"},
    "smaller heads": {"step": "prune", "fit": FIT, "query_key": 0.5, "value_output": 0.5},
    "whitened": WHITENED,
    "nearest": NEAREST,
}
BUILDERS = {"llama": tiny_llama, "gpt2": tiny_gpt2, "bert": tiny_bert}


def recipe(folder: Path, *steps: dict[str, Any], build: Any = tiny_llama, **fields: Any) -> Recipe:
    """A recipe on a tiny model in bfloat16, which lies in the folder."""
    if not (folder / "model").exists():
        save_tiny(folder / "model", build().to(torch.bfloat16))
        (folder / "text.txt").write_text(TEXT)
    data = {"train": str(folder / "text.txt")}
    return make_recipe({"model": str(folder / "model"), "data": data, "precision": "fp32", "steps": steps, **fields})


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: value for path in weights_files(folder / "checkpoint") for name, value in load_file(path).items()}


def require_equal(folder: Path, other: Path) -> None:
    expected, found = tensors(folder), tensors(other)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype == torch.bfloat16 or not value.is_floating_point()
        assert torch.equal(found[name], value), name
    probe = "checkpoint/kronpress_probe.safetensors"
    assert (folder / probe).read_bytes() == (other / probe).read_bytes()
    assert (folder / "checkpoint" / "config.json").read_bytes() == (other / "checkpoint" / "config.json").read_bytes()


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("family", BUILDERS)
def test_the_bits_are_those_of_the_whole_model(family: str, step: str, tmp_path: Path) -> None:
    for memory in ("whole", "blocks"):
        execute(recipe(tmp_path, STEPS[step], build=BUILDERS[family], memory=memory), tmp_path / memory)
    require_equal(tmp_path / "whole", tmp_path / "blocks")
