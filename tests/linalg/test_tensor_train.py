from __future__ import annotations

import math
import re
from functools import reduce

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kronpress.errors import KronpressError
from kronpress.linalg import (
    KroneckerShape,
    TensorTrainMatrix,
    TensorTrainTable,
    balanced_modes,
    check_modes,
    nearest_kronecker_sum,
    paired_modes,
    tensor_train,
    tensor_train_matrix,
    tensor_train_rows,
)

SIZES = st.integers(1, 4)
MODES = st.lists(st.tuples(SIZES, SIZES), min_size=1, max_size=4).map(tuple)
ROW_MODES = st.lists(SIZES, min_size=1, max_size=4).map(tuple)
RANKS, SEEDS = st.integers(1, 6), st.integers(0, 99)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def matrix_of(modes: tuple[tuple[int, int], ...], *, seed: int) -> torch.Tensor:
    return random(math.prod(m for m, _ in modes), math.prod(n for _, n in modes), seed=seed)


def usable(sizes: list[int]) -> list[int]:
    """The rank that a tensor with axes of these sizes has between each two of them, if it is random."""
    return [min(math.prod(sizes[:k]), math.prod(sizes[k:])) for k in range(1, len(sizes))]


def numbers(value: TensorTrainMatrix) -> int:
    return sum(core.numel() for core in value.cores)


@pytest.mark.parametrize(
    ("matrix", "at_least", "products"),
    [
        ((3072, 768), 16, [16, 16, 16, 16, 36]),
        ((3072, 768), 32, [64, 64, 96, 6]),
        ((3072, 768), 64, [64, 64, 96, 6]),
        ((3072, 768), 80, [256, 256, 36]),
        ((4096, 1024), 72, [256, 256, 64]),
    ],
)
def test_modes_are_those_of_the_paper(matrix: tuple[int, int], at_least: int, products: list[int]) -> None:
    modes = paired_modes(matrix, at_least=at_least)
    assert [m * n for m, n in modes] == products
    assert paired_modes(matrix[::-1], at_least=at_least) == tuple((n, m) for m, n in modes)


@given(rows=st.integers(1, 400), columns=st.integers(1, 400), at_least=st.integers(1, 50))
@settings(deadline=None)
def test_modes_multiply_to_the_matrix_and_reach_the_least(rows: int, columns: int, at_least: int) -> None:
    modes = paired_modes((rows, columns), at_least=at_least)
    assert (math.prod(m for m, _ in modes), math.prod(n for _, n in modes)) == (rows, columns)
    assert all(m * n >= at_least for m, n in modes[:-1])


def test_primes_and_ones_have_modes() -> None:
    assert paired_modes((50257, 4), at_least=2) == ((29, 2), (1733, 2))
    assert paired_modes((7, 4), at_least=2) == ((7, 2), (1, 2))
    assert paired_modes((1, 1), at_least=2) == ((1, 1),)


@given(size=st.integers(1, 2000))
def test_three_modes_are_as_equal_as_divisors_allow(size: int) -> None:
    modes = balanced_modes(size)
    assert math.prod(modes) == size
    assert modes[1] == min(modes)
    others = [(a, b) for a in range(1, 45) for b in range(1, 45) if size % (a * b) == 0]
    assert sum(modes) <= min(a + b + size // (a * b) for a, b in others)


PUBLISHED = [  # a feed-forward matrix of TTM-16, 32, 64, 80 and of TTM-72, the medium one
    ((3072, 768), 16, 13_120),
    ((3072, 768), 32, 166_080),
    ((3072, 768), 64, 659_840),
    ((3072, 768), 80, 1_661_760),
    ((4096, 1024), 72, 1_350_144),
]


@pytest.mark.parametrize(("matrix", "rank", "parameters"), PUBLISHED)
@pytest.mark.parametrize("transposed", [False, True])
def test_redundant_ranks_make_the_published_counts(
    matrix: tuple[int, int], rank: int, parameters: int, transposed: bool
) -> None:
    shape = matrix[::-1] if transposed else matrix
    value = tensor_train_matrix(torch.zeros(shape), modes=paired_modes(shape, at_least=rank), rank=rank, redundant=True)
    assert numbers(value) == parameters


@given(modes=MODES, rank=RANKS, seed=SEEDS)
@settings(deadline=None, max_examples=60)
def test_it_is_the_sum_of_kron_over_all_combinations_of_ranks(
    modes: tuple[tuple[int, int], ...], rank: int, seed: int
) -> None:
    value = tensor_train_matrix(matrix_of(modes, seed=seed), modes=modes, rank=rank)
    total = torch.zeros_like(value.to_dense())
    for path in torch.cartesian_prod(torch.zeros(1).long(), *map(torch.arange, value.ranks)).view(-1, len(modes)):
        bonds = [*path.tolist(), 0]
        parts = [
            core[bonds[k], :, :, bonds[k + 1]].clone(memory_format=torch.contiguous_format)
            for k, core in enumerate(value.cores)
        ]
        total += reduce(torch.kron, parts)
    torch.testing.assert_close(value.to_dense(), total)
    assert value.modes == modes


@given(modes=MODES, rank=RANKS, seed=SEEDS, redundant=st.booleans())
@settings(deadline=None, max_examples=80)
def test_the_error_is_that_of_the_matrix_multiplied_out(
    modes: tuple[tuple[int, int], ...], rank: int, seed: int, redundant: bool
) -> None:
    matrix = matrix_of(modes, seed=seed)
    value = tensor_train_matrix(matrix, modes=modes, rank=rank, redundant=redundant)
    assert (matrix - value.to_dense()).norm().item() == pytest.approx(value.error, abs=1e-7 * matrix.norm().item())
    limits = usable([m * n for m, n in modes])
    assert value.ranks == tuple(rank if redundant else min(rank, limit) for limit in limits)


@given(modes=MODES, seed=SEEDS)
@settings(deadline=None, max_examples=60)
def test_all_ranks_are_exact(modes: tuple[tuple[int, int], ...], seed: int) -> None:
    matrix = matrix_of(modes, seed=seed)
    value = tensor_train_matrix(matrix, modes=modes, rank=max(usable([m * n for m, n in modes]), default=1))
    torch.testing.assert_close(value.to_dense(), matrix, atol=1e-10, rtol=0)
    assert value.error == 0.0


@given(modes=MODES, rank=RANKS, seed=SEEDS)
@settings(deadline=None, max_examples=40)
def test_a_chain_is_found_again(modes: tuple[tuple[int, int], ...], rank: int, seed: int) -> None:
    chain = tensor_train_matrix(matrix_of(modes, seed=seed), modes=modes, rank=rank).to_dense()
    again = tensor_train_matrix(chain, modes=modes, rank=rank)
    torch.testing.assert_close(again.to_dense(), chain, atol=1e-10, rtol=0)
    assert again.error == pytest.approx(0.0, abs=1e-7 * chain.norm().item())


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_two_cores_are_the_nearest_sum_of_kronecker_products(rank: int) -> None:
    matrix = random(12, 10)
    chain = tensor_train_matrix(matrix, modes=((4, 2), (3, 5)), rank=rank)
    as_sum = nearest_kronecker_sum(matrix, shape=KroneckerShape(m1=4, n1=2, m2=3, n2=5), terms=rank)
    assert chain.error == pytest.approx(as_sum.error, rel=1e-12)
    torch.testing.assert_close(chain.to_dense(), as_sum.to_dense())
    torch.testing.assert_close(chain.cores[0][0].permute(2, 0, 1), as_sum.left)
    torch.testing.assert_close(chain.cores[1][..., 0], as_sum.right)


def test_the_cores_have_equal_norms() -> None:
    value = tensor_train_matrix(100 * random(24, 30), modes=((2, 3), (3, 5), (4, 2)), rank=3)
    norms = torch.stack([core.norm() for core in value.cores])
    torch.testing.assert_close(norms, norms.mean().expand(3))


def test_padded_ranks_leave_the_matrix_and_train() -> None:
    matrix, modes = random(8, 24), ((2, 3), (2, 4), (2, 2))
    lean, padded = (tensor_train_matrix(matrix, modes=modes, rank=9, redundant=flag) for flag in (False, True))
    assert (lean.ranks, padded.ranks) == ((6, 4), (9, 9))
    torch.testing.assert_close(padded.to_dense(), lean.to_dense())
    leaves = [core.requires_grad_() for core in padded.cores]
    gradients = torch.autograd.grad(random(8, 24, seed=1).mul(padded.to_dense()).sum(), leaves)
    assert gradients[1][6:, ..., :4].abs().min() > 0
    assert gradients[2][4:].abs().min() > 0
    with torch.no_grad():  # after one step the rest has a gradient too
        stepped = tuple((core - 0.01 * grad).requires_grad_() for core, grad in zip(leaves, gradients, strict=True))
    second = torch.autograd.grad(random(8, 24, seed=2).mul(TensorTrainMatrix(stepped).to_dense()).sum(), stepped)
    assert all(gradient.abs().min() > 0 for gradient in second)


@pytest.mark.parametrize("redundant", [False, True])
def test_a_zero_matrix_has_zero_error(redundant: bool) -> None:
    value = tensor_train_matrix(torch.zeros(6, 6), modes=((2, 3), (3, 2)), rank=2, redundant=redundant)
    assert value.error == 0.0
    assert torch.equal(value.to_dense(), torch.zeros(6, 6))


@pytest.mark.parametrize("redundant", [False, True])
def test_the_number_format_is_kept(redundant: bool) -> None:
    matrix = random(6, 6).to(torch.bfloat16)
    value = tensor_train_matrix(matrix, modes=((2, 3), (3, 2)), rank=7, redundant=redundant)
    assert {core.dtype for core in value.cores} == {torch.bfloat16}
    assert {core.dtype for core in tensor_train_rows(matrix, modes=(2, 3), rank=1).cores} == {torch.bfloat16}


@given(rows=st.integers(1, 7), modes=ROW_MODES, rank=RANKS, seed=SEEDS)
@settings(deadline=None, max_examples=80)
def test_a_table_is_made_row_by_row(rows: int, modes: tuple[int, ...], rank: int, seed: int) -> None:
    table = random(rows, math.prod(modes), seed=seed)
    value = tensor_train_rows(table, modes=modes, rank=rank)
    assert (table - value.to_dense()).norm().item() == pytest.approx(value.error, abs=1e-6)
    assert value.ranks == tuple(min(rank, limit) for limit in usable(list(modes)))
    assert value.modes == modes
    for row in range(rows):  # a row as a matrix of one column
        alone = tensor_train_matrix(table[row][:, None], modes=tuple((mode, 1) for mode in modes), rank=rank)
        torch.testing.assert_close(value.to_dense()[row], alone.to_dense()[:, 0], atol=1e-6, rtol=0)


def test_rows_are_exact_with_all_ranks_and_zero_rows_stay_zero() -> None:
    table = random(5, 24) * torch.tensor([1.0, 0.0, 1e-9, 1e9, 1.0])[:, None]
    value = tensor_train_rows(table, modes=(2, 3, 4), rank=4)
    torch.testing.assert_close(value.to_dense(), table, atol=0, rtol=1e-9)
    assert value.error == 0.0


def test_a_long_table_is_taken_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    table = random(7, 12)
    whole = tensor_train_rows(table, modes=(3, 4), rank=2)
    monkeypatch.setattr(tensor_train, "_CHUNK_ELEMENTS", 24)
    chunked = tensor_train_rows(table, modes=(3, 4), rank=2)
    torch.testing.assert_close(chunked.to_dense(), whole.to_dense())
    assert chunked.error == pytest.approx(whole.error)
    assert isinstance(chunked, TensorTrainTable)


REFUSED = [
    (((2, 3), (3, 3)), 2, "the column modes 3 · 3 multiply to 9, not 6; choose from its divisors 1, 2, 3, 6, or leave"),
    (((2, 3), (4, 2)), 2, "the row modes 2 · 4 multiply to 8, not 6; choose from its divisors"),
    (((-2, 3), (-3, 2)), 2, "the row modes -2 · -3 multiply to 6, not 6"),
    (((2, 3), (3, 2)), 0, "rank is 0; a tensor train takes 1 or more"),
]


@pytest.mark.parametrize(("modes", "rank", "message"), REFUSED)
def test_what_does_not_fit_is_refused(modes: tuple[tuple[int, int], ...], rank: int, message: str) -> None:
    with pytest.raises(KronpressError, match=re.escape(message)):
        tensor_train_matrix(torch.ones(6, 6), modes=modes, rank=rank)


def test_rows_that_do_not_fold_are_refused() -> None:
    with pytest.raises(KronpressError, match="the column modes 2 · 2 multiply to 4, not 6"):
        tensor_train_rows(torch.ones(2, 6), modes=(2, 2), rank=1)
    with pytest.raises(KronpressError, match="rank is 0"):
        tensor_train_rows(torch.ones(2, 6), modes=(2, 3), rank=0)
    check_modes((2, 3), size=6, axis="column")
