"""Folded scales leave the function, fewer parameters, and a checkpoint that opens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import kronpress
from kronpress.checkpoint import structured_layers
from kronpress.errors import KronpressError
from kronpress.export import FoldedExporter
from kronpress.factorize import Factorize
from kronpress.layers import KroneckerFactors
from tests.tiny import bench, factorized, logits, tiny_bert, tiny_gpt2, tiny_llama, tiny_tokenizer


@pytest.mark.parametrize("build", [tiny_llama, tiny_gpt2, tiny_bert])
def test_a_folded_model_is_the_same_with_fewer_numbers(build: Any, tmp_path: Path) -> None:
    student = factorized(build(), tmp_path)
    before = student.num_parameters()
    scaled = [part for part in student.modules() if isinstance(part, KroneckerFactors)]
    done = FoldedExporter().write(student, tmp_path / "folded", tokenizer=tiny_tokenizer())
    again = kronpress.load(done.folder)
    torch.testing.assert_close(logits(again), logits(student), atol=1e-5, rtol=1e-5)
    assert before - done.parameters == 2 * len(scaled) == before - again.num_parameters()
    assert all(part.scales is not None for part in scaled), "the model itself is left as it is"
    assert not any("scales=True" in repr(layer.spec) for layer in structured_layers(again).values())
    assert done.parity.as_run <= 1e-4
    assert kronpress.verify(done.folder)["deviation"] <= 1e-5


def test_wrongly_folded_scales_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = bench(tiny_llama(), tmp_path)
    Factorize(method={"name": "van_loan_normalized", "right": (1, 2), "scales": True}, sites="up").run(work)
    monkeypatch.setattr(KroneckerFactors, "fold_scales", lambda layer: setattr(layer, "scales", None))
    with pytest.raises(KronpressError, match="is off the product of its factors"):
        FoldedExporter().write(work.student, tmp_path / "folded")
    assert not (tmp_path / "folded").exists()
