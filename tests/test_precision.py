"""The number format is the faster one on the machine, or the one that the user wants, and a run keeps it."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from kronpress import precision
from kronpress.distill import Distill
from kronpress.errors import KronpressError
from kronpress.precision import bfloat16_speedup, choose, mixed_precision
from kronpress.run.execution import Run, execute
from kronpress.run.recipe import Recipe, read_recipe
from tests.cli.test_bad_input import call
from tests.tiny import TEXT, save_tiny, tiny_llama

CPU = torch.device("cpu")
RECIPE = """
steps:
- {step: prune, fit: {tokens: 512, window: 64}}
- {step: evaluate, protocols: [tokens-64], max_windows: 2}
- {step: evaluate, protocols: [tokens-64], max_windows: 2, precision: fp32}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    save_tiny(tmp_path / "model", tiny_llama())
    (tmp_path / "text.txt").write_text(TEXT)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    where = [f"model={tmp_path / 'model'}", f"data.train={tmp_path / 'text.txt'}"]
    return read_recipe(tmp_path / "recipe.yaml", overrides=where)


def measured(monkeypatch: pytest.MonkeyPatch, speedup: float, *, able: bool = True) -> None:
    """Let bfloat16 be so many times as fast as float32."""
    monkeypatch.setattr(precision, "has_bfloat16", lambda _: able)
    monkeypatch.setattr(precision, "bfloat16_speedup", lambda _: speedup)


def results(run: Run) -> tuple[bytes, list[dict[str, Any]]]:
    """The weights, and the perplexities of the dense model."""
    reports = [json.loads(path.read_text()) for path in sorted(run.folder.glob("steps/*-evaluate/report.json"))]
    dense = [report["record"]["perplexity"][0]["dense"]["perplexity"] for report in reports]
    return (run.checkpoint / "model.safetensors").read_bytes(), dense


def test_the_faster_format_is_chosen_and_told_and_the_user_may_want_another(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = {}
    for speedup, asked in ((7.5, "auto"), (0.6, "auto"), (0.6, "bf16"), (7.5, "fp32")):
        measured(monkeypatch, speedup)
        run = execute(recipe.model_copy(update={"precision": asked}), tmp_path / f"{speedup}-{asked}")
        expected = asked if asked != "auto" else "bf16" if speedup > 1 else "fp32"
        why = f"bf16 is {speedup:.2f} × as fast as fp32 here" if asked == "auto" else "as asked for"
        told = f"{expected} ({why})"
        assert capsys.readouterr().out.count(f"matrix products in {told}") == 1
        assert run.manifest().precision == expected
        assert told in (run.folder / "report.html").read_text()
        runs[speedup, asked] = results(run)
    assert runs[7.5, "auto"] == runs[0.6, "bf16"] != runs[0.6, "auto"] == runs[7.5, "fp32"]
    fast, slow = runs[7.5, "auto"][1], runs[0.6, "auto"][1]
    assert fast[0] != fast[1] == slow[0] == slow[1], "a step may ask for a format of its own"


@pytest.mark.parametrize(("before", "after"), [(4.0, 0.5), (0.5, 4.0)])
def test_a_resumed_run_keeps_its_format(
    before: float, after: float, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured(monkeypatch, before)
    recipe = recipe.model_copy(update={"steps": (recipe.steps[0], Distill(tokens=128, window=64), recipe.steps[1])})
    whole = execute(recipe, tmp_path / "whole")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Distill, "run", interrupted)
        execute(recipe, tmp_path / "run")
    measured(monkeypatch, after)
    run = execute(recipe, tmp_path / "run", resume=True)
    assert results(run) == results(whole)
    assert run.manifest().precision == whole.manifest().precision == ("bf16" if before > 1 else "fp32")


def interrupted(*_: Any) -> Any:
    raise KeyboardInterrupt


def test_a_device_without_bfloat16_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, 9.0, able=False)
    assert choose("auto", CPU).name == "fp32"
    with mixed_precision(CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_short_attentions_that_are_trained_stay_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, 9.0)
    for positions, trained, wide in ((64, True, True), (64, False, False), (384, True, False)):
        numbers = torch.randn(1, 2, positions, 8, generator=torch.Generator().manual_seed(positions)).bfloat16()
        exact, plain, ours = (numbers.to(dtype, copy=True) for dtype in (torch.float32, torch.bfloat16, torch.bfloat16))
        for own, context in ((exact, nullcontext()), (plain, autocast()), (ours, mixed_precision(CPU))):
            own.requires_grad_(trained)
            with context:
                given = scaled_dot_product_attention(own, own, value=own, is_causal=True)
            if trained:
                (given.float() ** 2).sum().backward()
            assert given.dtype == own.dtype
        with torch.no_grad():
            in_float32 = scaled_dot_product_attention(exact, exact, exact, is_causal=True).bfloat16()
        assert torch.equal(given, in_float32) == wide
        if trained:
            assert plain.grad is not None and ours.grad is not None and exact.grad is not None
            assert torch.equal(ours.grad, plain.grad) != wide
            assert (ours.grad - exact.grad).norm() <= (plain.grad - exact.grad).norm()


def autocast() -> AbstractContextManager[object]:
    return torch.autocast("cpu", torch.bfloat16)


def test_the_measurement_is_made_once_and_leaves_random_numbers_alone() -> None:
    before = torch.get_rng_state()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        speedup = bfloat16_speedup(CPU)
    assert 0.01 < speedup < 1000
    assert bfloat16_speedup(CPU) == speedup, "no two measurements are equal to the last digit"
    assert torch.equal(torch.get_rng_state(), before)


def test_evaluate_takes_a_format_and_tells_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT)
    save_tiny(tmp_path / "single", tiny_llama())
    save_tiny(tmp_path / "half", tiny_llama().bfloat16())
    found = {}
    for name, speedup, asked in (
        ("single", 5.0, "auto"),
        ("single", 0.2, "auto"),
        ("single", 0.2, "bf16"),
        ("single", 5.0, "fp32"),
        ("half", 0.2, "auto"),
        ("half", 0.2, "bf16"),
    ):
        measured(monkeypatch, speedup)
        options = ["--data", "text.txt", "--max-windows", "2", "--precision", asked, "--json", "out.json"]
        assert call(monkeypatch, "evaluate", tmp_path / name, *options) == 0
        result = json.loads(Path("out.json").read_text())[str(tmp_path / name)]
        assert f"matrix products in {result['precision']} (" in capsys.readouterr().out
        found[name, speedup, asked] = result["precision"], result["perplexity"][0]["perplexity"]
    assert found["single", 5.0, "auto"] == found["single", 0.2, "bf16"]
    assert found["single", 0.2, "auto"] == found["single", 5.0, "fp32"]
    assert [found[key][0] for key in found] == ["bf16", "fp32", "bf16", "fp32", "fp32", "bf16"]
    in_single = tiny_llama().bfloat16().float()
    save_tiny(tmp_path / "same", in_single)
    assert call(monkeypatch, "evaluate", tmp_path / "same", *options[:4], "--precision", "fp32", *options[6:]) == 0
    same = json.loads(Path("out.json").read_text())[str(tmp_path / "same")]["perplexity"][0]["perplexity"]
    assert found["half", 0.2, "auto"][1] == same, "weights in bf16 are computed with in fp32 where that is chosen"


def test_another_format_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KronpressError, match="precision is 'fp16'"):
        read_recipe("halve-ffn", overrides=["precision=fp16"])
    with pytest.raises(KronpressError, match="precision is 'float32'"):
        read_recipe("halve-ffn", overrides=["evaluate.precision=float32"])
    assert call(monkeypatch, "evaluate", tmp_path, "--precision", "fp16") != 0
    assert "'fp16'" in capsys.readouterr().err
