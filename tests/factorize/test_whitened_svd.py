from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from kronpress.errors import KronpressError
from kronpress.factorize import Factorize
from kronpress.linalg import nearest_low_rank
from tests.tiny import bench, logits, tiny_bert, tiny_gpt2, tiny_llama

INIT = {"name": "svd_whitened", "tokens": 512, "window": 32}
MODELS = pytest.mark.parametrize("model", [tiny_llama(), tiny_gpt2(), tiny_bert()], ids=["llama", "gpt2", "bert"])


def test_it_is_the_best_of_its_rank_for_the_inputs() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(7, 6, generator=generator, dtype=torch.float64)
    inputs = torch.randn(200, 6, generator=generator, dtype=torch.float64) * torch.tensor([9.0, 4, 2, 1, 0.5, 0.1])
    second = inputs.T @ inputs / len(inputs)
    weighted = nearest_low_rank(weight, rank=3, second_moment=second)
    missed = ((inputs @ (weight - weighted.to_dense()).T) ** 2).sum(dim=1).mean().sqrt()
    assert weighted.error == pytest.approx(missed.item(), rel=1e-6)
    outputs = inputs @ weight.T  # whose best rank-3 approximation no factors can beat
    tail = torch.linalg.svdvals(outputs)[3:].square().sum().div(len(inputs)).sqrt()
    assert weighted.error == pytest.approx(tail.item(), rel=1e-6)
    plain = nearest_low_rank(weight, rank=3)
    assert ((inputs @ (weight - plain.to_dense()).T) ** 2).sum(dim=1).mean().sqrt() > missed


@MODELS
def test_it_is_nearer_to_the_dense_model_than_plain_svd(model: PreTrainedModel, tmp_path: Path) -> None:
    ids = torch.arange(64).view(2, 32) + 97
    distances = {}
    for name in ("svd", "svd_whitened"):
        work = bench(model, tmp_path)
        init = INIT if name == "svd_whitened" else name
        report = Factorize(init=init, sites="all", ratio=0.7).run(work)
        assert all(0 < module["relative_error"] < 1 for module in report["modules"])
        text = bench(model, tmp_path).training_windows(size=32)[:8]
        distances[name] = (logits(work.student, text) - logits(model, text)).square().mean().item()
        assert logits(work.student, ids).isfinite().all()
    assert distances["svd_whitened"] < distances["svd"]


def test_a_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KronpressError, match="inside of blocks, not model"):
        Factorize(init=INIT, sites="embedding", ratio=0.5).run(bench(tiny_llama(), tmp_path))
