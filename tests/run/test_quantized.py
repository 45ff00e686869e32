"""A run that lowers the bits step by step, stopped at any moment, goes on to the same bits."""

from __future__ import annotations

from pathlib import Path

import pytest

from kronpress.checkpoint import load
from kronpress.distill import Distill
from kronpress.layers import is_learning, quantized_tensors
from kronpress.quantize import Quantize
from kronpress.run import execution
from kronpress.run.execution import execute
from kronpress.run.recipe import Recipe, read_recipe
from kronpress.train.trainer import DistillationTrainer
from tests.run.test_interrupted import StopError, stopping, weights
from tests.tiny import TEXT, save_tiny, tiny_gpt2

RECIPE = """
steps:
- {step: quantize, weights: {bits: 4, quantizer: lsq}, tables: 8, inputs: 8}
- {step: distill, tokens: 384, window: 32, save_every: 2}
- {step: quantize, weights: {bits: 1.58, quantizer: laq}, tables: 4, inputs: {bits: 4, quantizer: lsq}}
- {step: distill, tokens: 384, window: 32, save_every: 2}
"""
STOPS = [
    (Quantize, "run", 2),
    (DistillationTrainer, "training_step", 9),
    (execution, "keep_progress", 3),
    (execution, "pack", 1),
]


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    save_tiny(tmp_path / "model", tiny_gpt2(resid_pdrop=0.1))
    (tmp_path / "text.txt").write_text(TEXT)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    where = [f"model={tmp_path / 'model'}", f"data.train={tmp_path / 'text.txt'}"]
    return read_recipe(tmp_path / "recipe.yaml", overrides=where)


def test_a_stop_anywhere_changes_nothing(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = execute(recipe, tmp_path / "whole")
    opened = load(whole.checkpoint)
    assert not is_learning(opened)
    assert {tensor.grid.levels for tensor in quantized_tensors(opened)} == {"ternary", "int4"}
    for number, (owner, name, at) in enumerate(STOPS):
        folder = tmp_path / f"run{number}"
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, stopping(getattr(owner, name), at=at))
            with pytest.raises(StopError):
                execute(recipe, folder)
        run = execute(recipe, folder, resume=True)
        assert weights(run) == weights(whole), (owner, name, at)
        assert not list(run.folder.rglob("learning.safetensors"))


def test_a_packed_model_is_trained_on(recipe: Recipe, tmp_path: Path) -> None:
    packed = execute(recipe.model_copy(update={"steps": recipe.steps[:1]}), tmp_path / "packed")
    learning = Distill(losses={"cross_entropy": 1}, tokens=384, window=32)
    further = recipe.model_copy(update={"model": str(packed.checkpoint), "steps": [learning]})
    trained = execute(further, tmp_path / "trained")
    assert load(trained.checkpoint).config.quantization_config.modules == (
        load(packed.checkpoint).config.quantization_config.modules
    )
    assert weights(trained) != weights(packed)
