from __future__ import annotations

import pytest
import torch

from kronpress.linalg import balance, nearest_low_rank


def moment(size: int, *, seed: int) -> torch.Tensor:
    rows = torch.randn(3 * size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return rows.T @ rows / len(rows)


def test_both_moments_become_the_same_diagonal() -> None:
    left, right = moment(6, seed=0), moment(6, seed=1)
    found = balance(left, right)
    torch.testing.assert_close(found.into @ found.out, torch.eye(6, dtype=torch.float64))
    torch.testing.assert_close(found.into @ right @ found.into.T, torch.diag(found.importance))
    torch.testing.assert_close(found.out.T @ left @ found.out, torch.diag(found.importance))
    assert found.importance.tolist() == sorted(found.importance.tolist(), reverse=True)


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_the_first_coordinates_are_the_truncated_decomposition_on_whitened_inputs(rank: int) -> None:
    weight = torch.randn(9, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    right = moment(6, seed=3)
    found = balance(weight.T @ weight, right)
    ours = weight @ found.out[:, :rank] @ found.into[:rank]
    best = nearest_low_rank(weight, rank=rank, second_moment=right)
    torch.testing.assert_close(ours, best.left @ best.right)


def test_heads_are_balanced_one_by_one() -> None:
    pairs = [(moment(4, seed=seed), moment(4, seed=seed + 9)) for seed in range(3)]
    together = balance(torch.stack([left for left, _ in pairs]), torch.stack([right for _, right in pairs]))
    for index, (left, right) in enumerate(pairs):
        torch.testing.assert_close(together.importance[index], balance(left, right).importance)
