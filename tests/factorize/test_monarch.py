from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from kronpress.checkpoint import save
from kronpress.errors import KronpressError
from kronpress.factorize import Factorize
from kronpress.layers import MonarchLinear, weight_of
from kronpress.validation import parse
from tests.tiny import DIM, WIDTH, bench, logits, tiny_gpt2, tiny_llama, tiny_tokenizer

UP, DOWN = "transformer.h.0.mlp.c_fc", "transformer.h.0.mlp.c_proj"


def factorize(*, fit: Any = "nearest", sites: str = "feed_forward", **fields: Any) -> Factorize:
    step: Factorize = parse(
        Factorize, {"form": {"name": "monarch", **fields}, "fit": fit, "sites": sites}, place="steps.0 (factorize)"
    )
    return step


@pytest.mark.parametrize(("blocks", "ratio", "rank"), [(1, 0.5, 4), (2, 0.5, 2), (4, 0.5, 1), (2, 0.9, 4)])
def test_the_rank_keeps_the_share(blocks: int, ratio: float, rank: int, tmp_path: Path) -> None:
    work = bench(tiny_gpt2(), tmp_path)
    factorize(blocks=blocks, ratio=ratio).run(work)
    for path, (rows, columns) in ((UP, (WIDTH, DIM)), (DOWN, (DIM, WIDTH))):
        layer = work.student.get_submodule(path)
        assert isinstance(layer, MonarchLinear)
        assert (layer.blocks, layer.rank, layer.matrix) == (blocks, rank, (rows, columns))
        assert layer.spec.parameters - rows == blocks * rank * (rows + columns) <= ratio * rows * columns


def test_a_fused_projection_is_taken_share_by_share(tmp_path: Path) -> None:
    work = bench(tiny_gpt2(), tmp_path)
    factorize(blocks=4, sites="qkv").run(work)
    parts = work.student.get_submodule("transformer.h.1.attn.c_attn").parts
    assert [part.spec.kind for part in parts] == ["monarch_linear"] * 3


def test_fitted_to_a_text_it_is_nearer_to_the_dense_model(tmp_path: Path) -> None:
    model, distances = tiny_llama(), []
    for fit in ("nearest", {"name": "whitened", "tokens": 512, "window": 32}):
        work = bench(model, tmp_path)
        factorize(blocks=2, ratio=0.7, fit=fit, sites="all").run(work)
        text = bench(model, tmp_path).training_windows(size=32)[:8]
        distances.append((logits(work.student, text) - logits(model, text)).square().mean().item())
    assert distances[1] < distances[0]


def test_a_published_name_projects(tmp_path: Path) -> None:
    work = bench(tiny_gpt2(), tmp_path)
    Factorize(method={"name": "monarch", "blocks": 2, "ratio": 0.7}, sites="up").run(work)
    weight, layer = weight_of(work.teacher.get_submodule(UP)), work.student.get_submodule(UP)
    u, sigma, vh = torch.linalg.svd(weight[1::2, :8])
    expected = (u[:, : layer.rank] * sigma[: layer.rank]) @ vh[: layer.rank]
    torch.testing.assert_close(layer.to_dense().weight[1::2, :8], expected, atol=1e-5, rtol=1e-5)


def test_a_checkpoint_opens_again(tmp_path: Path) -> None:
    work = bench(tiny_gpt2(), tmp_path)
    factorize(blocks=2, sites="all").run(work)
    folder = save(work.student, tmp_path / "model", tokenizer=tiny_tokenizer())
    again = AutoModelForCausalLM.from_pretrained(folder)
    assert torch.equal(logits(again), logits(work.student))
    assert again.get_submodule(UP).spec == work.student.get_submodule(UP).spec


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"blocks": 0}, "form monarch: blocks is 0"),
    ({"ratio": 1.0}, r"form monarch: ratio is 1\.0"),
    ({"rank": 2}, r"form monarch: rank is none of its keys; it belongs to form: \{name: tensor_train, rank"),
    ({"blocks": 3}, r"h\.0\.mlp\.c_fc \(24 × 16\): blocks is 3, which must divide .*; choose one of 1, 2, 4, 8"),
    (
        {"blocks": 8, "ratio": 0.3},
        r"h\.0\.mlp\.c_fc \(24 × 16\): 8 blocks keep 0\.84 of the numbers or more, and ratio is 0\.3; "
        "choose fewer blocks, or a larger ratio",
    ),
    ({"sites": "embedding"}, r"monarch makes linear layers, not the table transformer\.wte"),
    (
        {"fit": "frequency"},
        r"fit: frequency can not find the numbers of form: monarch; .*monarch takes fit: .*nearest, whitened",
    ),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED, ids=str)
def test_what_does_not_fit_is_refused_before_the_run(fields: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(KronpressError, match=message):
        factorize(**fields).check(bench(tiny_gpt2(), tmp_path))
