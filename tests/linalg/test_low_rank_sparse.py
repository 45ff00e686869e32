from __future__ import annotations

import itertools
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kronpress.errors import KronpressError
from kronpress.linalg import LowRankSparse, nearest_low_rank, nearest_low_rank_sparse


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moment_of(size: int) -> torch.Tensor:
    inputs = random(80, size, seed=5) @ random(size, size, seed=6)
    return inputs.T @ inputs / len(inputs)


def distance(matrix: torch.Tensor, value: LowRankSparse, moment: torch.Tensor | None = None) -> float:
    missed = matrix - value.to_dense()
    return float(((missed if moment is None else missed @ moment) * missed).sum().sqrt())


def of_its_form(*, rank: int, rows: list[int], size: float = 1.0) -> torch.Tensor:
    matrix = random(12, rank) @ random(rank, 9, seed=1)
    matrix[rows] = size * random(len(rows), 9, seed=2)
    return matrix


def test_one_row_that_differs_by_hand() -> None:
    matrix = torch.tensor([[1.0, 1], [2, 2], [9, 0], [3, 3]])
    value = nearest_low_rank_sparse(matrix, rank=1, rows=1)
    assert value.kept.tolist() == [2]
    assert value.error < 1e-7
    torch.testing.assert_close(value.to_dense(), matrix)
    product = value.left @ value.right
    torch.testing.assert_close(product, torch.tensor([[1.0, 1], [2, 2], [4.5, 4.5], [3, 3]]))
    torch.testing.assert_close(value.sparse, torch.tensor([[4.5, -4.5]]))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_a_matrix_of_its_form_is_found_again(size: float, weighted: bool) -> None:
    matrix, moment = of_its_form(rank=3, rows=[1, 4, 10], size=size), moment_of(9) if weighted else None
    value = nearest_low_rank_sparse(matrix, rank=3, rows=3, second_moment=moment)
    assert value.kept.tolist() == [1, 4, 10]
    torch.testing.assert_close(value.to_dense(), matrix)
    assert value.error < 1e-6 * matrix.norm()


@given(rank=st.integers(1, 4), rows=st.integers(1, 4), weighted=st.booleans(), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=30)
def test_the_error_is_its_distance_and_never_rises(rank: int, rows: int, weighted: bool, seed: int) -> None:
    matrix, moment = random(10, 7, seed=seed), moment_of(7) if weighted else None
    errors = []
    for sweeps in range(6):
        value = nearest_low_rank_sparse(matrix, rank=rank, rows=rows, second_moment=moment, sweeps=sweeps)
        assert value.error == pytest.approx(distance(matrix, value, moment), rel=1e-6)
        errors.append(value.error)
    assert all(later <= earlier * (1 + 1e-9) for earlier, later in itertools.pairwise(errors))
    assert errors[0] <= nearest_low_rank(matrix, rank=rank, second_moment=moment).error * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_it_is_near_the_best_choice_of_rows(seed: int) -> None:
    matrix = random(8, 6, seed=seed)
    tails = []
    for kept in itertools.combinations(range(8), 2):
        others = [row for row in range(8) if row not in kept]
        tails.append(torch.linalg.svdvals(matrix[others])[2:].norm().item())
    error = nearest_low_rank_sparse(matrix, rank=2, rows=2).error
    assert min(tails) * (1 - 1e-9) <= error <= min(tails) * 1.15
    assert error <= sorted(tails)[len(tails) // 2]


def test_the_product_is_the_best_for_the_rows_that_are_not_kept() -> None:
    matrix, moment = random(9, 6), moment_of(6)
    value = nearest_low_rank_sparse(matrix, rank=2, rows=3, second_moment=moment)
    others = [row for row in range(9) if row not in value.kept.tolist()]
    best = nearest_low_rank(matrix[others], rank=2, second_moment=moment)
    torch.testing.assert_close((value.left @ value.right)[others], best.to_dense(), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(value.to_dense()[value.kept], matrix[value.kept])


def test_a_matrix_of_lower_rank_and_number_format() -> None:
    matrix = torch.outer(torch.arange(6.0), torch.ones(8)).to(torch.bfloat16)
    value = nearest_low_rank_sparse(matrix, rank=3, rows=2)
    assert value.left.dtype == value.right.dtype == value.sparse.dtype == torch.bfloat16
    torch.testing.assert_close(value.to_dense(), matrix, atol=0.1, rtol=0.02)
    assert value.error < 1e-6
    nothing = nearest_low_rank_sparse(torch.zeros(6, 4), rank=2, rows=1)
    assert nothing.error == 0
    assert not nothing.to_dense().any()


@pytest.mark.parametrize(("rank", "rows"), [(0, 1), (1, 0), (3, 1), (2, 4)])
def test_impossible_sizes_are_refused(rank: int, rows: int) -> None:
    message = re.escape(f"rank is {rank} and rows is {rows}; a (5, 2) matrix takes a rank of 1 to 2")
    with pytest.raises(KronpressError, match=message):
        nearest_low_rank_sparse(torch.ones(5, 2), rank=rank, rows=rows)
