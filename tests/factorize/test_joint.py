"""One low-rank product for a fused projection as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from kronpress.checkpoint import save
from kronpress.errors import KronpressError
from kronpress.factorize import Factorize
from kronpress.layers import FusedLinear, LowRankLinear, weight_of
from kronpress.linalg import nearest_low_rank
from tests.tiny import DIM, bench, logits, tiny_gpt2, tiny_llama, tiny_tokenizer

QKV, UP = "transformer.h.1.attn.c_attn", "transformer.h.1.mlp.c_fc"
JOINT = {"name": "low_rank", "ratio": 0.5, "joint": True}


def test_the_stacked_matrix_has_one_right_factor_and_a_higher_rank(tmp_path: Path) -> None:
    apart, joint = bench(tiny_gpt2(), tmp_path), bench(tiny_gpt2(), tmp_path)
    Factorize(form=JOINT | {"joint": False}, sites="all").run(apart)
    Factorize(form=JOINT, sites="all").run(joint)
    layer, parts = joint.student.get_submodule(QKV), apart.student.get_submodule(QKV)
    assert isinstance(layer, LowRankLinear)
    assert isinstance(parts, FusedLinear)
    assert (layer.matrix, layer.rank) == ((3 * DIM, DIM), int(0.5 * 3 * DIM * DIM / (4 * DIM)))
    assert layer.rank > max(part.rank for part in parts.parts)
    weight = weight_of(joint.teacher.get_submodule(QKV))
    expected = nearest_low_rank(weight, rank=layer.rank).to_dense()
    torch.testing.assert_close(layer.to_dense().weight, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(layer.bias, joint.teacher.get_submodule(QKV).bias)
    assert joint.student.get_submodule(UP).spec == apart.student.get_submodule(UP).spec


@pytest.mark.parametrize("fit", ["nearest", {"name": "whitened", "tokens": 512, "window": 32}])
def test_a_stacked_matrix_of_low_rank_leaves_the_function(fit: Any, tmp_path: Path) -> None:
    model = tiny_gpt2()
    for block in model.transformer.h:
        weight = block.attn.c_attn.weight
        weight.data = nearest_low_rank(weight.data, rank=6).to_dense()
    work = bench(model, tmp_path)
    report = Factorize(form=JOINT, fit=fit, sites="qkv").run(work)
    assert all(change.relative_error < 1e-4 for change in report.modules)
    torch.testing.assert_close(logits(work.student), logits(model), atol=1e-3, rtol=1e-3)


def test_a_checkpoint_opens_again(tmp_path: Path) -> None:
    work = bench(tiny_gpt2(), tmp_path)
    Factorize(form=JOINT, sites="attention").run(work)
    again = AutoModelForCausalLM.from_pretrained(save(work.student, tmp_path / "model", tokenizer=tiny_tokenizer()))
    assert torch.equal(logits(again), logits(work.student))


@pytest.mark.parametrize(("build", "sites"), [(tiny_llama, "attention"), (tiny_gpt2, "feed_forward")])
def test_where_nothing_is_fused_it_is_refused(build: Any, sites: str, tmp_path: Path) -> None:
    message = f"joint: true finds nothing in {sites} that this model computes by one matrix, .*; leave it out"
    with pytest.raises(KronpressError, match=message):
        Factorize(form=JOINT, sites=sites).check(bench(build(), tmp_path))
