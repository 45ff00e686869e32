from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kronpress.errors import KronpressError
from kronpress.linalg import MonarchMatrix, expand_monarch, nearest_low_rank, nearest_monarch, require_blocks


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def factors(*, blocks: int, p: int, q: int, rank: int) -> MonarchMatrix:
    return MonarchMatrix(random(blocks, p, blocks * rank), random(blocks, blocks * rank, q, seed=1))


def moment_of(size: int) -> torch.Tensor:
    inputs = random(80, size, seed=5) @ random(size, size, seed=6)
    return inputs.T @ inputs / len(inputs)


def distance(matrix: torch.Tensor, value: MonarchMatrix, moment: torch.Tensor | None = None) -> float:
    missed = matrix - value.to_dense()
    return float(((missed if moment is None else missed @ moment) * missed).sum().sqrt())


def dealt(rows: int, columns: int) -> torch.Tensor:
    """The matrix that takes a vector, as rows × columns, to its transpose."""
    return torch.eye(rows * columns, dtype=torch.float64)[torch.arange(rows * columns).view(rows, columns).T.flatten()]


def test_a_square_one_is_the_product_of_the_paper() -> None:
    value = factors(blocks=3, p=3, q=3, rank=1)
    permutation = dealt(3, 3)
    expected = permutation @ torch.block_diag(*value.left) @ permutation.T @ torch.block_diag(*value.right)
    torch.testing.assert_close(value.to_dense(), expected)


def test_a_rectangular_one_is_too() -> None:
    value = factors(blocks=2, p=3, q=5, rank=1)
    middle, outputs = dealt(2, 2), dealt(2, 3)
    expected = outputs @ torch.block_diag(*value.left) @ middle @ torch.block_diag(*value.right)
    torch.testing.assert_close(value.to_dense(), expected)


def test_two_by_two_blocks_by_hand() -> None:
    left = torch.tensor([[[1.0, 2], [3, 4]], [[5, 6], [7, 8]]])
    right = torch.tensor([[[1.0, 10], [2, 20]], [[3, 30], [4, 40]]])
    expected = [[1.0, 10, 6, 60], [10, 100, 24, 240], [3, 30, 12, 120], [14, 140, 32, 320]]
    assert expand_monarch(left, right).tolist() == expected


def test_a_kronecker_product_is_one() -> None:
    matrix = torch.kron(random(4, 3), random(3, 5, seed=1))
    value = nearest_monarch(matrix, blocks=3, rank=1)
    torch.testing.assert_close(value.to_dense(), matrix)
    assert value.error < 1e-7


@given(
    blocks=st.integers(1, 4),
    p=st.integers(1, 5),
    q=st.integers(1, 5),
    data=st.data(),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=40)
def test_each_sub_block_is_the_best_of_its_rank(blocks: int, p: int, q: int, data: st.DataObject, seed: int) -> None:
    rank = data.draw(st.integers(1, min(p, q)))
    matrix = random(blocks * p, blocks * q, seed=seed)
    value = nearest_monarch(matrix, blocks=blocks, rank=rank)
    tails = [
        torch.linalg.svdvals(matrix[group::blocks, run * q : (run + 1) * q])[rank:].square().sum()
        for group in range(blocks)
        for run in range(blocks)
    ]
    expected = torch.stack(tails).sum().sqrt().item()
    assert value.error == pytest.approx(expected, abs=1e-6)
    assert distance(matrix, value) == pytest.approx(expected, abs=1e-6)
    assert value.rank == rank


def test_one_block_is_a_low_rank_product() -> None:
    matrix, moment = random(6, 5), moment_of(5)
    for given_moment in (None, moment):
        plain = nearest_low_rank(matrix, rank=2, second_moment=given_moment)
        value = nearest_monarch(matrix, blocks=1, rank=2, second_moment=given_moment)
        torch.testing.assert_close(value.to_dense(), plain.to_dense())
        assert value.error == pytest.approx(plain.error)


@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_found_again_and_full_rank_is_exact(weighted: bool) -> None:
    moment = moment_of(15) if weighted else None
    value = factors(blocks=3, p=4, q=5, rank=2)
    again = nearest_monarch(value.to_dense(), blocks=3, rank=2, second_moment=moment)
    torch.testing.assert_close(again.to_dense(), value.to_dense())
    matrix = random(12, 15, seed=3)
    whole = nearest_monarch(matrix, blocks=3, rank=4, second_moment=moment)
    torch.testing.assert_close(whole.to_dense(), matrix)
    assert whole.error < 1e-5


@pytest.mark.parametrize("weighted", [False, True])
def test_more_rank_than_is_needed_does_no_harm(weighted: bool) -> None:
    value = factors(blocks=3, p=4, q=5, rank=1)
    again = nearest_monarch(value.to_dense(), blocks=3, rank=3, second_moment=moment_of(15) if weighted else None)
    torch.testing.assert_close(again.to_dense(), value.to_dense())
    assert max(again.left.abs().max(), again.right.abs().max()) < 10 * max(value.left.max(), value.right.max())


def test_for_given_inputs_it_is_nearer_and_no_run_can_be_made_better() -> None:
    matrix, moment = random(12, 15), moment_of(15)
    plain = nearest_monarch(matrix, blocks=3, rank=1)
    value = nearest_monarch(matrix, blocks=3, rank=1, second_moment=moment)
    least = distance(matrix, value, moment)
    assert value.error == pytest.approx(least, rel=1e-9)
    assert least < 0.9 * distance(matrix, plain, moment)
    left, right = value.left.requires_grad_(), value.right.requires_grad_()
    missed = matrix - expand_monarch(left, right)
    slopes = torch.autograd.grad((missed @ moment * missed).sum(), (left, right))
    assert all(slope.abs().max() < 0.05 * least**2 for slope in slopes)


def test_equal_inputs_give_the_nearest_one() -> None:
    matrix = random(8, 6)
    plain = nearest_monarch(matrix, blocks=2, rank=1)
    alike = nearest_monarch(matrix, blocks=2, rank=1, second_moment=4 * torch.eye(6, dtype=torch.float64))
    torch.testing.assert_close(alike.to_dense(), plain.to_dense())
    assert alike.error == pytest.approx(2 * plain.error)


def test_zero_is_nearest_to_zero_and_the_number_format_stays() -> None:
    value = nearest_monarch(torch.zeros(6, 4, dtype=torch.bfloat16), blocks=2, rank=1, second_moment=moment_of(4))
    assert value.left.dtype == value.right.dtype == torch.bfloat16
    assert value.error == 0
    assert not value.to_dense().any()


@pytest.mark.parametrize("rank", [0, 3])
def test_an_impossible_rank_is_refused(rank: int) -> None:
    with pytest.raises(KronpressError, match=re.escape(f"rank is {rank}; a sub-block of (3, 2) takes 1 to 2")):
        nearest_monarch(torch.ones(6, 4), blocks=2, rank=rank)


@pytest.mark.parametrize("blocks", [0, 3, 4])
def test_blocks_that_do_not_divide_are_refused(blocks: int) -> None:
    message = f"blocks is {blocks}, which must divide the 6 rows and the 4 columns; choose one of 1, 2"
    with pytest.raises(KronpressError, match=message):
        require_blocks((6, 4), blocks=blocks)
