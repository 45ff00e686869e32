from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kronpress.linalg import TruncatedSVD, svd, truncated_svd, truncated_svd_each


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_is_best_approximation(found: TruncatedSVD, matrix: torch.Tensor, *, rank: int) -> None:
    u, sigma, vh = torch.linalg.svd(matrix, full_matrices=False)
    best = (u[:, :rank] * sigma[:rank]) @ vh[:rank]
    torch.testing.assert_close((found.u * found.sigma) @ found.v.T, best, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(found.sigma, sigma[:rank], atol=1e-9, rtol=1e-9)
    assert found.tail == pytest.approx(sigma[rank:].norm().item(), abs=1e-7 * sigma[0].item())
    identity = torch.eye(rank, dtype=torch.float64)
    torch.testing.assert_close(found.u.T @ found.u, identity, atol=1e-8, rtol=0)
    torch.testing.assert_close(found.v.T @ found.v, identity, atol=1e-8, rtol=0)


@given(rows=st.integers(1, 12), columns=st.integers(1, 12), data=st.data(), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=50)
def test_agrees_with_lapack(rows: int, columns: int, data: st.DataObject, seed: int) -> None:
    rank = data.draw(st.integers(1, min(rows, columns)))
    basis = torch.linalg.qr(random(max(rows, columns), min(rows, columns), seed=seed)).Q
    values = 2.0 ** -torch.arange(min(rows, columns), dtype=torch.float64)  # apart, so that the vectors are unique
    matrix = (basis * values) @ torch.linalg.qr(random(min(rows, columns), min(rows, columns), seed=seed + 1)).Q
    matrix = matrix if rows >= columns else matrix.T
    assert_is_best_approximation(truncated_svd(matrix, rank=rank), matrix, rank=rank)


@pytest.mark.parametrize("shape", [(700, 600), (600, 700)])
@pytest.mark.parametrize("rank", [1, 8])
def test_lanczos_agrees_with_lapack(shape: tuple[int, int], rank: int) -> None:
    assert min(shape) > svd._DENSE_SIDE
    basis, values = torch.linalg.qr(random(*shape)), 0.9 ** torch.arange(min(shape), dtype=torch.float64)
    matrix = (basis.Q * values) @ basis.R if shape[0] > shape[1] else (values[:, None] * basis.R) + 0.1 * random(*shape)
    assert_is_best_approximation(truncated_svd(matrix, rank=rank), matrix, rank=rank)


def test_lanczos_finds_what_its_start_vector_misses() -> None:
    half = random(600, 300, seed=4)
    matrix = torch.cat([half, -half], dim=1)  # every row sums to zero: the vector of ones is in the null space
    found = truncated_svd(matrix, rank=3)
    torch.testing.assert_close(found.sigma, torch.linalg.svdvals(matrix)[:3])


def test_lanczos_takes_a_zero_matrix() -> None:
    found = truncated_svd(torch.zeros(600, 600), rank=2)
    assert found.tail == 0.0
    assert torch.equal((found.u * found.sigma) @ found.v.T, torch.zeros(600, 600, dtype=torch.float64))


def test_the_result_is_reproducible() -> None:
    matrix = random(600, 600, seed=6)
    first, second = truncated_svd(matrix, rank=4), truncated_svd(matrix, rank=4)
    assert torch.equal(first.u, second.u)
    assert torch.equal(first.v, second.v)


def test_blocks_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = random(50, 7, seed=7)
    whole = truncated_svd(matrix, rank=3)
    monkeypatch.setattr(svd, "_CHUNK_ELEMENTS", 21)
    blocks = truncated_svd(matrix, rank=3)
    torch.testing.assert_close((blocks.u * blocks.sigma) @ blocks.v.T, (whole.u * whole.sigma) @ whole.v.T)


def test_small_singular_values_survive_the_gram_matrix() -> None:
    matrix = torch.diag(torch.tensor([1.0, 1e-6, 1e-12], dtype=torch.float64))
    found = truncated_svd(matrix, rank=3)
    torch.testing.assert_close((found.u * found.sigma) @ found.v.T, matrix, atol=1e-20, rtol=1e-9)


@pytest.mark.parametrize(("shape", "rank"), [((5, 7, 4), 2), ((3, 2, 6), 2), ((1, 5, 5), 1)])
def test_many_small_ones_are_decomposed_as_each_by_itself(shape: tuple[int, int, int], rank: int) -> None:
    matrices, tails = random(*shape), []
    u, sigma, v, tail = truncated_svd_each(matrices, rank=rank)
    for index, matrix in enumerate(matrices):
        alone = truncated_svd(matrix, rank=rank)
        torch.testing.assert_close((u[index] * sigma[index]) @ v[index], (alone.u * alone.sigma) @ alone.v.T)
        tails.append(alone.tail)
    assert tail == pytest.approx(torch.tensor(tails).norm().item(), abs=1e-6)
