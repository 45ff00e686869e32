from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from kronpress.errors import KronpressError
from kronpress.factorize import Factorize
from kronpress.layers import KroneckerLinear
from kronpress.linalg import KroneckerShape, nearest_kronecker_sum, nearest_low_rank, weighted_kronecker_sum
from tests.tiny import bench, logits, tiny_bert, tiny_gpt2, tiny_llama

METHOD = {"name": "svd_whitened", "tokens": 512, "window": 32}
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


def weighted_error(weight: torch.Tensor, found: torch.Tensor, second: torch.Tensor) -> float:
    missed = weight - found
    return float((missed @ second * missed).sum().sqrt())


def moments_of(size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(60, size, generator=generator, dtype=torch.float64) * torch.linspace(0.1, 3, size)
    return inputs.T @ inputs / len(inputs)


@pytest.mark.parametrize("terms", [1, 3])
@pytest.mark.parametrize("shape", [KroneckerShape(4, 3, 2, 5), KroneckerShape(2, 5, 3, 3)], ids=str)
def test_kronecker_factors_are_optimal_each_for_the_other(shape: KroneckerShape, terms: int) -> None:
    weight = torch.randn(shape.matrix, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    second = moments_of(shape.matrix[1])
    found = weighted_kronecker_sum(weight, shape=shape, terms=terms, second_moment=second)
    least = weighted_error(weight, found.to_dense(), second)
    assert found.error == pytest.approx(least, rel=1e-6)
    plain = nearest_kronecker_sum(weight, shape=shape, terms=terms)
    assert least < 0.95 * weighted_error(weight, plain.to_dense(), second)
    torch.testing.assert_close(found.left.flatten(1).norm(dim=1), found.right.flatten(1).norm(dim=1))
    factors = found.left.requires_grad_(), found.right.requires_grad_()
    missed = weight - torch.einsum("tij,tkl->ikjl", *factors).reshape(shape.matrix)
    slopes = torch.autograd.grad((missed @ second * missed).sum(), factors)
    assert all(slope.abs().max() < 2e-2 * least**2 for slope in slopes)


def test_equal_inputs_give_the_nearest_sum_and_a_sum_is_found_again() -> None:
    shape = KroneckerShape(4, 3, 2, 5)
    weight = torch.randn(shape.matrix, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    alike = weighted_kronecker_sum(weight, shape=shape, terms=2, second_moment=4 * torch.eye(15, dtype=torch.float64))
    plain = nearest_kronecker_sum(weight, shape=shape, terms=2)
    assert alike.error == pytest.approx(2 * plain.error)
    torch.testing.assert_close(alike.to_dense(), plain.to_dense())
    again = weighted_kronecker_sum(plain.to_dense(), shape=shape, terms=2, second_moment=moments_of(15))
    torch.testing.assert_close(again.to_dense(), plain.to_dense())
    assert again.error < 1e-6 * plain.error


def _size(method: str) -> dict[str, Any]:
    return {"right": (1, 2)} if "van_loan" in method else {}


PLAIN = {"svd_whitened": "svd", "van_loan_whitened": "van_loan"}


@MODELS
@pytest.mark.parametrize("whitened", PLAIN)
def test_it_is_nearer_to_the_dense_model_than_without_text(
    model: PreTrainedModel, whitened: str, tmp_path: Path
) -> None:
    ids = torch.arange(64).view(2, 32) + 97
    distances = {}
    for name in (PLAIN[whitened], whitened):
        work = bench(model, tmp_path)
        size = {"right": (1, 2)} if "van_loan" in whitened else {"ratio": 0.7}
        method = (METHOD if name == whitened else {}) | {"name": name} | size
        report = Factorize(method=method, sites="all").run(work)
        assert all(0 < module.relative_error < 1 for module in report.modules)
        text = bench(model, tmp_path).training_windows(size=32)[:8]
        distances[name] = (logits(work.student, text) - logits(model, text)).square().mean().item()
        assert logits(work.student, ids).isfinite().all()
    assert distances[whitened] < distances[PLAIN[whitened]]
    kinds = {type(module) for module in work.student.modules()}
    assert (KroneckerLinear in kinds) == (whitened == "van_loan_whitened")


@pytest.mark.parametrize("whitened", PLAIN)
def test_a_table_is_refused(whitened: str, tmp_path: Path) -> None:
    with pytest.raises(KronpressError, match="inside of blocks, not model"):
        method = METHOD | {"name": whitened} | _size(whitened)
        Factorize(method=method, sites="embedding").run(bench(tiny_llama(), tmp_path))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"right": (5, 1)}, r"5 does not divide the \d+ rows"),
        ({"right": (1, 2), "terms": 3}, "terms is 3; .* takes 1 to 2"),
    ],
)
def test_what_kronecker_factors_can_not_be_is_said_first(fields: dict[str, Any], message: str, tmp_path: Path) -> None:
    step = Factorize(method=METHOD | {"name": "van_loan_whitened"} | fields)
    for call in (step.check, step.run):
        with pytest.raises(KronpressError, match=message):
            call(bench(tiny_gpt2(), tmp_path))


@pytest.mark.parametrize("whitened", PLAIN)
def test_what_is_factorized_already_is_said(whitened: str, tmp_path: Path) -> None:
    work = bench(tiny_gpt2(), tmp_path)
    Factorize(method={"name": "van_loan", "right": (1, 2)}, sites="up").run(work)
    with pytest.raises(KronpressError, match=r"mlp\.c_fc has factors or codes already"):
        Factorize(method=METHOD | {"name": whitened} | _size(whitened), sites="feed_forward").run(work)


def test_nothing_is_nearest_to_nothing() -> None:
    found = weighted_kronecker_sum(torch.zeros(8, 15), shape=KroneckerShape(4, 3, 2, 5), second_moment=moments_of(15))
    assert found.error == 0 and not found.to_dense().any()


def test_with_all_terms_nothing_is_missed() -> None:
    shape = KroneckerShape(4, 3, 2, 5)
    weight = torch.randn(shape.matrix, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    found = weighted_kronecker_sum(weight, shape=shape, terms=shape.max_terms, second_moment=moments_of(15))
    torch.testing.assert_close(found.to_dense(), weight)
    assert found.error < 1e-10
