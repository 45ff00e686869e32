"""Errors that count by the second moment of the inputs and by the curvature of the loss in the outputs."""

from __future__ import annotations

import pytest
import torch

from kronpress.linalg import KroneckerShape, nearest_low_rank, weighted_kronecker_sum


def moment(size: int, *, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(60, size, generator=generator, dtype=torch.float64) * torch.linspace(0.1, 3, size)
    return rows.T @ rows / len(rows)


WEIGHT = torch.randn(12, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
SECOND, CURVATURE = moment(10, seed=1), moment(12, seed=2)
SHAPE = KroneckerShape(3, 5, 4, 2)


def missed(found: torch.Tensor, *, curvature: torch.Tensor = CURVATURE) -> float:
    rest = WEIGHT - found
    return float((curvature @ rest @ SECOND * rest).sum().sqrt())


def test_a_low_rank_product_is_the_best_one() -> None:
    found = nearest_low_rank(WEIGHT, rank=4, second_moment=SECOND, curvature=CURVATURE)
    assert found.error == pytest.approx(missed(found.to_dense()))
    seen = torch.linalg.cholesky(CURVATURE).T @ WEIGHT @ torch.linalg.cholesky(SECOND)
    assert found.error == pytest.approx(torch.linalg.svdvals(seen)[4:].norm().item())  # Eckart and Young
    one_sided = nearest_low_rank(WEIGHT, rank=4, second_moment=SECOND)
    assert found.error < 0.9 * missed(one_sided.to_dense())


def test_weights_of_rows_are_a_diagonal_curvature() -> None:
    counts = torch.linspace(0.1, 5, 12, dtype=torch.float64)
    by_rows = nearest_low_rank(WEIGHT, rank=4, second_moment=SECOND, row_weights=counts)
    bent = nearest_low_rank(WEIGHT, rank=4, second_moment=SECOND, curvature=torch.diag(counts))
    torch.testing.assert_close(by_rows.to_dense(), bent.to_dense())
    assert by_rows.error == pytest.approx(bent.error)


def test_alike_outputs_are_one_sided_weights() -> None:
    alike = torch.eye(12, dtype=torch.float64)
    for rank in (2, 10):
        plain = nearest_low_rank(WEIGHT, rank=rank, second_moment=SECOND)
        same = nearest_low_rank(WEIGHT, rank=rank, second_moment=SECOND, curvature=alike)
        torch.testing.assert_close(same.to_dense(), plain.to_dense())
    plain_sum = weighted_kronecker_sum(WEIGHT, shape=SHAPE, terms=2, second_moment=SECOND)
    same_sum = weighted_kronecker_sum(WEIGHT, shape=SHAPE, terms=2, second_moment=SECOND, curvature=alike)
    assert same_sum.error == pytest.approx(plain_sum.error, rel=1e-4)
    torch.testing.assert_close(same_sum.to_dense(), plain_sum.to_dense(), atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("terms", [1, 3])
def test_a_kronecker_sum_comes_nearer(terms: int) -> None:
    one_sided = weighted_kronecker_sum(WEIGHT, shape=SHAPE, terms=terms, second_moment=SECOND)
    found = weighted_kronecker_sum(WEIGHT, shape=SHAPE, terms=terms, second_moment=SECOND, curvature=CURVATURE)
    assert found.error == pytest.approx(missed(found.to_dense()))
    assert found.error < 0.95 * missed(one_sided.to_dense())
    torch.testing.assert_close(found.left.flatten(1).norm(dim=1), found.right.flatten(1).norm(dim=1))


def test_a_sum_is_found_again() -> None:
    sums = weighted_kronecker_sum(WEIGHT, shape=SHAPE, terms=2, second_moment=SECOND)
    again = weighted_kronecker_sum(sums.to_dense(), shape=SHAPE, terms=2, second_moment=SECOND, curvature=CURVATURE)
    torch.testing.assert_close(again.to_dense(), sums.to_dense())
    whole = weighted_kronecker_sum(WEIGHT, shape=SHAPE, terms=8, second_moment=SECOND, curvature=CURVATURE)
    assert whole.error < 1e-9
