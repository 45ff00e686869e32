from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import kronpress
from kronpress.checkpoint import save
from kronpress.errors import KronpressError
from kronpress.factorize import Factorize
from kronpress.layers import LowRankSparseLinear, weight_of
from kronpress.validation import parse
from tests.tiny import DIM, WIDTH, bench, logits, tiny_gpt2, tiny_llama, tiny_tokenizer

UP, DOWN = "transformer.h.0.mlp.c_fc", "transformer.h.0.mlp.c_proj"


def factorize(*, fit: Any = "nearest", sites: str = "feed_forward", **fields: Any) -> Factorize:
    step: Factorize = parse(
        Factorize, {"form": {"name": "losparse", **fields}, "fit": fit, "sites": sites}, place="steps.0 (factorize)"
    )
    return step


@pytest.mark.parametrize(
    ("ratio", "sparse", "up", "down"),
    [(0.5, 0.1, (4, 1), (4, 1)), (0.5, 0.5, (2, 6), (2, 4)), (0.9, 0.4, (5, 8), (5, 5))],
)
def test_rank_and_rows_keep_the_share(
    ratio: float, sparse: float, up: tuple[int, int], down: tuple[int, int], tmp_path: Path
) -> None:
    work = bench(tiny_gpt2(), tmp_path)
    factorize(ratio=ratio, sparse=sparse).run(work)
    for path, sizes, (rows, columns) in ((UP, up, (WIDTH, DIM)), (DOWN, down, (DIM, WIDTH))):
        layer = work.student.get_submodule(path)
        assert isinstance(layer, LowRankSparseLinear)
        assert (layer.rank, layer.rows, layer.matrix) == (*sizes, (rows, columns))
        numbers = layer.rank * (rows + columns) + layer.rows * columns
        assert layer.spec.parameters - rows == numbers <= ratio * rows * columns


def test_kept_rows_compute_what_they_did(tmp_path: Path) -> None:
    work = bench(tiny_gpt2(), tmp_path)
    factorize(ratio=0.6, sparse=0.3, sites="up").run(work)
    weight, layer = weight_of(work.teacher.get_submodule(UP)), work.student.get_submodule(UP)
    kept = layer.kept.long()
    assert len(kept) == 4
    torch.testing.assert_close(layer.to_dense().weight[kept], weight[kept], atol=1e-5, rtol=1e-5)


def test_fitted_to_a_text_it_is_nearer_to_the_dense_model(tmp_path: Path) -> None:
    model, distances = tiny_llama(), []
    for fit in ("nearest", {"name": "whitened", "tokens": 512, "window": 32}):
        work = bench(model, tmp_path)
        factorize(ratio=0.7, fit=fit, sites="all").run(work)
        text = bench(model, tmp_path).training_windows(size=32)[:8]
        distances.append((logits(work.student, text) - logits(model, text)).square().mean().item())
    assert distances[1] < distances[0]


@pytest.mark.parametrize("opening", [kronpress.load, AutoModelForCausalLM.from_pretrained])
def test_a_checkpoint_opens_again(opening: Any, tmp_path: Path) -> None:
    work = bench(tiny_gpt2(), tmp_path)
    Factorize(method="losparse", sites="all").run(work)
    again = opening(save(work.student, tmp_path / "model", tokenizer=tiny_tokenizer()))
    assert torch.equal(logits(again), logits(work.student))
    for path in (UP, DOWN):
        assert torch.equal(again.get_submodule(path).kept, work.student.get_submodule(path).kept)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"ratio": 1.0}, r"form losparse: ratio is 1\.0"),
    ({"sparse": 0}, "form losparse: sparse is 0"),
    ({"rows": 2}, "form losparse: unknown key 'rows'"),
    (
        {"ratio": 0.1, "sparse": 0.9},
        r"h\.0\.mlp\.c_fc \(24 × 16\): ratio 0\.1 with sparse 0\.9 keeps 2 of 24 rows, and beside them no product of "
        "rank 1; choose a larger ratio or a smaller sparse",
    ),
    ({"sites": "embedding"}, r"losparse makes linear layers, not the table transformer\.wte"),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED, ids=str)
def test_what_does_not_fit_is_refused_before_the_run(fields: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(KronpressError, match=message):
        factorize(**fields).check(bench(tiny_gpt2(), tmp_path))
