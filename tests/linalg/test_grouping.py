from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kronpress.linalg import RowGroup, low_rank_groups, truncated_svd

COLUMNS = 32


def mixed(*, ranks: tuple[int, ...], rows: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rows from spaces of so many dimensions, in a random order, and the space of each."""
    generator = torch.Generator().manual_seed(seed)
    parts = [
        torch.randn(rows, rank, generator=generator) @ torch.randn(rank, COLUMNS, generator=generator) for rank in ranks
    ]
    order = torch.randperm(rows * len(ranks), generator=generator)
    return torch.cat(parts)[order], torch.arange(len(ranks)).repeat_interleave(rows)[order]


def numbers(group: RowGroup) -> int:
    rows = len(group.rows)
    return min(group.rank * (rows + COLUMNS), rows * COLUMNS)


def split(matrix: Tensor, groups: int) -> tuple[Tensor, ...]:
    return torch.arange(len(matrix)).tensor_split(groups)


def evenly(matrix: Tensor, groups: int, budget: int) -> float:
    """What is missed with the first groups and one rank for all."""
    rank = budget // (len(matrix) + groups * COLUMNS)
    return sum(truncated_svd(matrix[rows], rank=rank).tail ** 2 for rows in split(matrix, groups))


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_every_row_is_in_one_group_and_the_numbers_are_kept_to(share: float) -> None:
    matrix, _ = mixed(ranks=(4, 12, 30), rows=200)
    budget = int(share * matrix.numel())
    groups = low_rank_groups(matrix, split(matrix, 4), numbers=budget)
    assert torch.equal(torch.cat([group.rows for group in groups]).sort().values, torch.arange(len(matrix)))
    assert 0.9 * budget < sum(numbers(group) for group in groups) <= budget
    for group in groups:
        missed = 0.0 if group.rank == COLUMNS else truncated_svd(matrix[group.rows], rank=group.rank).tail ** 2
        assert group.missed == pytest.approx(missed, rel=1e-4, abs=1e-2)


def test_it_misses_less_than_equal_groups_of_equal_rank() -> None:
    matrix, _ = mixed(ranks=(4, 12, 30), rows=200)
    budget = matrix.numel() // 2
    found = low_rank_groups(matrix, split(matrix, 4), numbers=budget)
    assert sum(group.missed for group in found) < 0.5 * evenly(matrix, 4, budget)


def test_rows_of_two_spaces_are_told_apart() -> None:
    matrix, space = mixed(ranks=(8, 8), rows=400)
    lopsided = [(space == 0).nonzero().flatten()[:300], (space == 1).nonzero().flatten()]
    lopsided[1] = torch.cat([lopsided[1], (space == 0).nonzero().flatten()[300:]])
    found = low_rank_groups(matrix, lopsided, numbers=8 * (800 + 2 * COLUMNS))
    assert sum(group.missed for group in found) < 1e-4 * float(matrix.square().sum())
    assert {frozenset(space[group.rows].tolist()) for group in found} == {frozenset({0}), frozenset({1})}


def test_heavy_rows_get_the_ranks() -> None:
    matrix = torch.randn(400, COLUMNS, generator=torch.Generator().manual_seed(0))
    matrix[:100] *= 10
    found = low_rank_groups(matrix, split(matrix, 4), numbers=matrix.numel() // 2)
    heavy = [group.rank for group in found if len(group.rows) and int(group.rows.min()) < 100]
    assert min(heavy) > max(group.rank for group in found if int(group.rows.min()) >= 100)


def test_a_matrix_of_zeros_is_grouped() -> None:
    (group,) = low_rank_groups(torch.zeros(50, COLUMNS), [torch.arange(50)], numbers=400)
    assert (len(group.rows), group.rank, group.missed) == (50, 1, 0.0)
