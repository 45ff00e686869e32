"""Choose the columns of a least-squares problem that are worth keeping, and solve it for them."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kronpress.linalg.inverse import inverse_in_place

_ROWS = 256  # of a matrix, that change together


def eliminate(
    moment: Float[Tensor, "n n"], cross: Float[Tensor, "out n"], *, keep: int, rounds: int = 32, run: int = 1
) -> Int[Tensor, " keep"]:
    """Return the indices of the `keep` inputs that a least-squares layer can least do without.

    The layer predicts a target t from its inputs h, with `moment` = E[h hᵀ], positive definite, and
    `cross` = E[t hᵀ]. Removing input j and re-solving the others costs ‖w_j‖² / [moment⁻¹]_jj, w being
    the solution on all of them (optimal brain surgeon; Hassibi and Stork, 1993). The cheapest inputs go
    in `rounds` shares, and the rest is solved anew after each.

    Args:
        moment: E[h hᵀ].
        cross: E[t hᵀ].
        keep: how many inputs or runs stay.
        rounds: in how many shares the others go.
        run: so many consecutive inputs stay or go together; what is counted and returned are runs then.
    """
    kept = torch.arange(len(moment) // run, device=moment.device)
    inverse = inverse_in_place(torch.linalg.cholesky(moment)).T  # whose rows lie together
    solution = cross @ inverse
    for target in torch.linspace(len(kept), keep, rounds + 1)[1:].round().long().tolist():
        order = _costs(solution, inverse, run=run).argsort(descending=True)
        stay, leave = order[:target].sort().values, order[target:]
        solution, inverse = _without(solution, inverse, stay=inputs_of(stay, run=run), leave=inputs_of(leave, run=run))
        kept = kept[stay]
    return kept


def inputs_of(runs: Int[Tensor, " count"], *, run: int) -> Int[Tensor, " inputs"]:
    """Return the inputs of some runs of so many consecutive ones.

    >>> inputs_of(torch.tensor([0, 2]), run=3)
    tensor([0, 1, 2, 6, 7, 8])
    """
    return (runs[:, None] * run + torch.arange(run, device=runs.device)).flatten()


def _costs(solution: Float[Tensor, "out n"], inverse: Float[Tensor, "n n"], *, run: int) -> Float[Tensor, " runs"]:
    """Return what it costs to remove each run: tr(W_r [inverse_rr]⁻¹ W_rᵀ), W_r being its columns of the solution."""
    if run == 1:
        lengths: Tensor = torch.linalg.vector_norm(solution, dim=0)  # which takes no copy
        return lengths.square() / inverse.diagonal()
    blocks = inverse.unflatten(0, (-1, run)).unflatten(2, (-1, run)).diagonal(dim1=0, dim2=2)  # run, run, runs
    columns = solution.T.unflatten(0, (-1, run))  # runs, run, out
    costs: Tensor = (columns * torch.linalg.solve(blocks.permute(2, 0, 1), columns)).sum((1, 2))
    return costs


def _without(
    solution: Float[Tensor, "out n"],
    inverse: Float[Tensor, "n n"],
    *,
    stay: Int[Tensor, " some"],
    leave: Int[Tensor, " others"],
) -> tuple[Tensor, Tensor]:
    """Return the solution and the inverse moment of the problem without the leaving inputs (Schur complement).

    `stay` ascends. Solution and inverse move together in their own memory: a copy may be half a gigabyte.
    """
    if not len(leave):
        return solution, inverse
    leaving = inverse[leave]
    repair = torch.linalg.solve(leaving[:, leave], leaving[:, stay])
    crossing, smaller = inverse[:, leave][stay], inverse[: len(stay), : len(stay)]
    for start in range(0, len(stay), _ROWS):  # what is written over has been read, since stay[i] >= i
        rows = slice(start, start + _ROWS)
        smaller[rows] = inverse[stay[rows]][:, stay] - crossing[rows] @ repair
    shorter = solution[:, : len(stay)]
    for start in range(0, len(solution), _ROWS):
        outputs = solution[start : start + _ROWS]
        shorter[start : start + _ROWS] = outputs[:, stay] - outputs[:, leave] @ repair
    return shorter, smaller


def refit(
    moment: Float[Tensor, "n n"], cross: Float[Tensor, "out n"], *, kept: Int[Tensor, " keep"]
) -> Float[Tensor, "out keep"]:
    """Return the weight on the kept inputs that best predicts the target, in the least-squares sense.

    Minimizes E‖t − w·h_kept‖²; with t = weight·h it is MoDeGPT's Nyström step (Type I).
    """
    return torch.cholesky_solve(cross[:, kept].T, torch.linalg.cholesky(moment[kept][:, kept])).T
