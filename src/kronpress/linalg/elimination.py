"""Choose the columns of a least-squares problem that are worth keeping, and solve it for them."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def eliminate(
    moment: Float[Tensor, "n n"], cross: Float[Tensor, "out n"], *, keep: int, rounds: int = 32
) -> Int[Tensor, " keep"]:
    """Return the indices of the `keep` inputs that a least-squares layer can least do without.

    The layer predicts a target t from its inputs h, with `moment` = E[h hᵀ], positive definite, and
    `cross` = E[t hᵀ]. Removing input j and re-solving the others costs ‖w_j‖² / [moment⁻¹]_jj, w being
    the solution on all of them (optimal brain surgeon; Hassibi and Stork, 1993). The cheapest inputs go
    in `rounds` shares, and the rest is solved anew after each.
    """
    kept = torch.arange(len(moment), device=moment.device)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moment))
    solution = cross @ inverse
    for target in torch.linspace(len(moment), keep, rounds + 1)[1:].round().long().tolist():
        order = (solution.square().sum(0) / inverse.diagonal()).argsort(descending=True)
        stay, leave = order[:target].sort().values, order[target:]
        solution, inverse = _without(solution, inverse, stay=stay, leave=leave)
        kept = kept[stay]
    return kept


def _without(solution: Tensor, inverse: Tensor, *, stay: Tensor, leave: Tensor) -> tuple[Tensor, Tensor]:
    """Return the solution and the inverse moment of the problem without the leaving inputs (Schur complement)."""
    if not len(leave):
        return solution, inverse
    repair = torch.linalg.solve(inverse[leave][:, leave], inverse[leave][:, stay])
    return solution[:, stay] - solution[:, leave] @ repair, inverse[stay][:, stay] - inverse[stay][:, leave] @ repair


def refit(
    moment: Float[Tensor, "n n"], cross: Float[Tensor, "out n"], *, kept: Int[Tensor, " keep"]
) -> Float[Tensor, "out keep"]:
    """Return the weight on the kept inputs that best predicts the target, in the least-squares sense.

    Minimizes E‖t − w·h_kept‖²; with t = weight·h it is MoDeGPT's Nyström step (Type I).
    """
    return torch.cholesky_solve(cross[:, kept].T, torch.linalg.cholesky(moment[kept][:, kept])).T
