from __future__ import annotations

import itertools

import pytest
import torch

from kronpress.linalg import eliminate, inputs_of, refit


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def normal_equations(inputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return inputs.T @ inputs / len(inputs), targets.T @ inputs / len(inputs)


def residual(inputs: torch.Tensor, targets: torch.Tensor, kept: torch.Tensor) -> float:
    weight = torch.linalg.lstsq(inputs[:, kept], targets).solution
    return (targets - inputs[:, kept] @ weight).square().sum().item()


def test_refit_is_least_squares() -> None:
    inputs, targets, kept = random(60, 9, seed=0), random(60, 4, seed=1), torch.tensor([7, 0, 3])
    weight = refit(*normal_equations(inputs, targets), kept=kept)
    torch.testing.assert_close(weight.T, torch.linalg.lstsq(inputs[:, kept], targets).solution)


@pytest.mark.parametrize("rounds", [1, 5, 50])
def test_redundant_inputs_go_and_the_refit_is_exact(rounds: int) -> None:
    useful, dense = random(80, 6, seed=2), random(3, 12, seed=3)
    inputs = torch.cat([useful, useful @ random(6, 6, seed=4)], dim=1)[:, torch.randperm(12)]
    moment, cross = normal_equations(inputs, inputs @ dense.T)
    kept = eliminate(moment + 1e-10 * torch.eye(12, dtype=torch.float64), cross, keep=6, rounds=rounds)
    weight = refit(moment, cross, kept=kept)
    torch.testing.assert_close(inputs[:, kept] @ weight.T, inputs @ dense.T, atol=1e-5, rtol=1e-5)


def test_inputs_that_nothing_needs_go_first() -> None:
    inputs = random(80, 8, seed=5)
    targets = inputs[:, [1, 4, 6]] @ random(3, 5, seed=6)
    kept = eliminate(*normal_equations(inputs, targets), keep=3)
    assert kept.tolist() == [1, 4, 6]


@pytest.mark.parametrize("seed", range(5))
def test_one_by_one_it_equals_greedy_solving_anew(seed: int) -> None:
    inputs, targets = random(40, 7, seed=seed), random(40, 3, seed=seed + 10)
    kept = list(range(7))
    while len(kept) > 3:
        costs = {j: residual(inputs, targets, torch.tensor([k for k in kept if k != j])) for j in kept}
        kept.remove(min(costs, key=costs.__getitem__))
    assert eliminate(*normal_equations(inputs, targets), keep=3, rounds=4).tolist() == kept


@pytest.mark.parametrize("seed", range(3))
def test_a_last_removal_is_the_best_of_all(seed: int) -> None:
    inputs, targets = random(40, 6, seed=seed), random(40, 2, seed=seed + 10)
    choices = [torch.tensor(choice) for choice in itertools.combinations(range(6), 5)]
    best = min(choices, key=lambda kept: residual(inputs, targets, kept))
    assert torch.equal(eliminate(*normal_equations(inputs, targets), keep=5), best)


@pytest.mark.parametrize("keep", [1, 5, 6])
def test_exactly_as_many_are_kept_in_order(keep: int) -> None:
    kept = eliminate(*normal_equations(random(30, 6, seed=1), random(30, 2, seed=2)), keep=keep)
    assert len(kept) == keep
    assert kept.tolist() == sorted(set(kept.tolist()))


@pytest.mark.parametrize("seed", range(3))
def test_runs_leave_together_the_cheapest_of_all_pairs_first(seed: int) -> None:
    inputs, targets = random(60, 8, seed=seed), random(60, 3, seed=seed + 10)
    kept = eliminate(*normal_equations(inputs, targets), keep=3, run=2, rounds=1)
    choices = [torch.tensor([run for run in range(4) if run != gone]) for gone in range(4)]
    best = min(choices, key=lambda runs: residual(inputs, targets, inputs_of(runs, run=2)))
    assert kept.tolist() == best.tolist()


def test_runs_of_one_are_inputs() -> None:
    inputs, targets = random(40, 6, seed=1), random(40, 3, seed=2)
    moment, cross = normal_equations(inputs, targets)
    doubled = torch.kron(moment, torch.eye(2, dtype=torch.float64))  # each input twice, each for targets of its own
    both = torch.kron(cross, torch.eye(2, dtype=torch.float64))
    expected = eliminate(moment, cross, keep=3)
    assert eliminate(doubled, both, keep=3, run=2).tolist() == expected.tolist()
