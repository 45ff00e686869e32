"""Fits that weigh errors by the curvature of the loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from kronpress.activations import Curvature
from kronpress.activations.head import head_moment
from kronpress.errors import KronpressError
from kronpress.factorize import Factorize
from kronpress.factorize.fits import Frequency
from kronpress.families import layout
from kronpress.layers import weight_of
from kronpress.validation import parse
from tests.tiny import bench, logits, tiny_gpt2, tiny_llama

WHITENED = {"name": "whitened", "tokens": 1024, "window": 32}


def step(form: dict[str, Any], *, sites: str = "feed_forward", **fit: Any) -> Factorize:
    return Factorize(form=form, sites=sites, fit=WHITENED | fit)


@pytest.mark.parametrize("build", [tiny_llama, tiny_gpt2])
@pytest.mark.parametrize("form", [{"name": "low_rank"}, {"name": "kronecker", "right": (1, 2)}], ids=["svd", "kron"])
def test_the_loss_rises_less(build: Any, form: dict[str, Any], tmp_path: Path) -> None:
    divergence = {}
    for name in (None, "kl"):
        work = bench(build(), tmp_path / str(name))
        step(form, sites="down", curvature=name and {"ridge": 1e-3}).run(work)
        ids = work.training_windows(size=32)[40:60]
        before, after = (logits(model, ids).log_softmax(-1) for model in (work.teacher, work.student))
        divergence[name] = float((before.exp() * (before - after)).sum(-1).mean())
    assert divergence["kl"] < 0.98 * divergence[None]


@pytest.mark.usefixtures("in_float32")
def test_shares_of_a_fused_matrix_have_their_rows_of_the_curvature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss sees the values alone: queries and keys have weights near to zero, values all the same."""
    bends = torch.diag(torch.cat([torch.full((32,), 1e-4), torch.ones(16)])).double()
    monkeypatch.setattr(Curvature, "measure", lambda self, model, windows, paths, seed: dict.fromkeys(paths, bends))
    bent, plain = bench(tiny_gpt2(), tmp_path / "a"), bench(tiny_gpt2(), tmp_path / "b")
    step({"name": "low_rank"}, sites="qkv", curvature="kl").run(bent)
    step({"name": "low_rank"}, sites="qkv").run(plain)
    torch.testing.assert_close(logits(bent.student), logits(plain.student), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("form", ["losparse", "monarch"])
def test_other_forms_are_refused(form: str) -> None:
    with pytest.raises(KronpressError, match=f"form: {form}; leave curvature out, or take form: kronecker, low_rank"):
        parse(Factorize, {"form": form, "fit": WHITENED | {"curvature": "kl"}}, place="step")


TABLE = {"name": "frequency", "curvature": {"tokens": 1024, "ridge": 1e-6}}
TABLE_MODELS = pytest.mark.parametrize("build", [tiny_llama, tiny_gpt2])


@TABLE_MODELS
def test_a_table_is_nearest_in_what_the_loss_sees(build: Any, tmp_path: Path) -> None:
    divergence = {}
    for fit in ({"name": "frequency"}, TABLE):
        work = bench(build(), tmp_path / str(len(divergence)))
        Factorize(sites="embedding", form={"name": "grouped", "ratio": 0.5}, fit=fit).run(work)
        ids = work.training_windows(size=32)[40:60]
        before, after = (logits(model, ids).log_softmax(-1) for model in (work.teacher, work.student))
        divergence[len(divergence)] = float((before.exp() * (before - after)).sum(-1).mean())
    assert divergence[1] < 0.9 * divergence[0]


def test_the_error_of_a_table_counts_rows_and_columns(tmp_path: Path) -> None:
    work = bench(tiny_llama(), tmp_path)
    windows = work.training_windows(size=128, tokens=1024)
    read = Curvature(tokens=1024, ridge=1e-6).measure(
        work.teacher, windows, paths=["model.embed_tokens"], seed=work.seed
    )["model.embed_tokens"]
    columns = read + head_moment(work.teacher, windows)
    form = {"name": "grouped", "groups": [{"tokens": 40, "terms": 6}], "right": (1, 16), "terms": 3}
    (change,) = Factorize(sites="embedding", form=form, fit=TABLE).run(work).modules
    before, after = (table_of(model).double() for model in (work.teacher, work.student))
    counts = work.training_counts(len(before)).double() + 0.5
    counts[258:263] += (counts.sum() - 0.5 * len(before)) // 1 / 100
    rest = before - after

    def size(rows: torch.Tensor) -> float:
        return float((counts[:, None] * (rows @ columns) * rows).sum().sqrt())

    assert change.relative_error == pytest.approx(size(rest) / size(before), rel=1e-3)


def table_of(model: PreTrainedModel) -> torch.Tensor:
    table = model.get_input_embeddings()
    return weight_of(table if isinstance(table, torch.nn.Embedding) else table.to_dense())


def test_columns_have_weights_in_low_rank_factors_alone(tmp_path: Path) -> None:
    made = Factorize(sites="embedding", form={"name": "kronecker", "right": (1, 4)}, fit=TABLE)
    with pytest.raises(KronpressError, match=r"not right factors with 4 of 16 columns; choose right: \[1, 16\]"):
        made.check(bench(tiny_llama(), tmp_path))


def test_the_numbers_of_tokens_count_where_the_text_lacks_them(tmp_path: Path) -> None:
    work = bench(tiny_llama(), tmp_path)
    embedding = layout(work.student).sites[0]
    plain, mixed = (Frequency(prior=prior).metric(work, embedding).row_weights for prior in (0.0, 0.25))
    assert mixed.sum().item() == pytest.approx(plain.sum().item())
    added = mixed - 0.75 * plain
    assert added.sum().item() == pytest.approx(0.25 * plain.sum().item())
    assert (added[0] / added[100]).item() == pytest.approx(2)  # 1 / 100 to 1 / 200


@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.9])
def test_a_share_of_the_numbers_is_kept(ratio: float, tmp_path: Path) -> None:
    work = bench(tiny_llama(vocab_size=600), tmp_path)
    (change,) = (
        Factorize(sites="embedding", form={"name": "grouped", "ratio": ratio}, fit="frequency").run(work).modules
    )
    assert ratio - 0.13 < change.parameters_after / change.parameters_before <= ratio + 0.01


def test_a_share_that_is_too_small_is_refused(tmp_path: Path) -> None:
    made = Factorize(sites="embedding", form={"name": "grouped", "ratio": 0.05}, fit="frequency")
    with pytest.raises(KronpressError, match=r"ratio: 0\.05 is too little even for rank 1"):
        made.check(bench(tiny_llama(), tmp_path))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "form grouped has no groups; give ratio, or groups and right"),
        ({"groups": [{"tokens": 8, "terms": 2}]}, "form grouped has no groups"),
        ({"ratio": 0.5, "right": (1, 16)}, "would not be read; ratio finds the groups and their terms"),
    ],
)
def test_groups_are_given_or_found(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(KronpressError, match=message):
        parse(Factorize, {"sites": "embedding", "form": {"name": "grouped", **fields}, "fit": "frequency"}, place="s")
