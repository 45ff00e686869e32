"""The sum of Kronecker products that is nearest for the inputs that a matrix gets."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from kronpress.linalg.kronecker import KroneckerSum, expand, nearest_kronecker_sum
from kronpress.linalg.ridge import energy
from kronpress.linalg.shapes import KroneckerShape

_SWEEPS = 200
_ENOUGH = 1e-5  # relative decrease of the squared error in a sweep that is worth another one
_RIDGE = 1e-12  # relative to the mean of the diagonal; terms may become alike
_LEAST = 1e-300  # that can be divided by


def weighted_kronecker_sum(
    matrix: Float[Tensor, "m n"], *, shape: KroneckerShape, terms: int = 1, second_moment: Float[Tensor, "n n"]
) -> KroneckerSum:
    """Return a sum of `terms` Kronecker products near to `matrix` in √E‖(W − Ŵ)x‖², with C = E[x xᵀ] of its inputs.

    From the nearest sum in the Frobenius norm, left and right factors are solved for in turn, all terms together, until
    that no longer helps (alternating least squares, Van Loan and Pitsianis, 1993, section 5, here with C in between):
    a local optimum. In float64, cast back to the dtype of `matrix`; the two factors of a term get equal norms.

    Raises:
        KronpressError: the shape is not that of the matrix, or more terms than it can use.
    """
    start = nearest_kronecker_sum(matrix, shape=shape, terms=terms)
    weight, second = matrix.double(), second_moment.double()
    moments = second.view(shape.n1, shape.n2, shape.n1, shape.n2)
    target = (weight @ second).view(shape.m1, shape.m2, shape.n1, shape.n2)
    whole = energy(weight, second)
    left, right, missed = start.left.double(), start.right.double(), whole
    for _ in range(_SWEEPS if terms < shape.max_terms else 0):  # with all terms the start is exact
        squares = torch.einsum("tpk,Tpl->tTkl", right, right)
        aim = torch.einsum("ipjk,tpk->tji", target, right)
        left = _solve(torch.einsum("jkJl,tTkl->tjTJ", moments, squares), aim)
        squares = torch.einsum("tij,TiJ->tTjJ", left, left)
        aim = torch.einsum("ipjk,tij->tkp", target, left)
        right = _solve(torch.einsum("jkJl,tTjJ->tkTl", moments, squares), aim)
        before, missed = missed, whole - (aim.transpose(1, 2) * right).sum()
        if before - missed <= _ENOUGH * before:
            break
    rest = weight - expand(left, right)
    error = energy(rest, second).clamp_min(0).sqrt()
    norms = [torch.linalg.vector_norm(each, dim=(1, 2), keepdim=True).clamp_min(_LEAST) for each in (left, right)]
    root = (norms[0] * norms[1]).sqrt()
    left, right = (left / norms[0] * root).to(matrix.dtype), (right / norms[1] * root).to(matrix.dtype)
    return KroneckerSum(left, right, error=float(error))


def _solve(
    normal: Float[Tensor, "terms size terms size"], aim: Float[Tensor, "terms size rows"]
) -> Float[Tensor, "terms rows size"]:
    """Return the factors X_t that minimize Σ ⟨X, X·normal⟩ − 2⟨X, aim⟩ over all terms together."""
    terms, size, rows = aim.shape
    square = normal.reshape(terms * size, terms * size)
    ridge = (_RIDGE * square.diagonal().mean()).clamp_min(_LEAST) * torch.eye(
        terms * size, dtype=square.dtype, device=square.device
    )
    found: Tensor = torch.linalg.solve(square + ridge, aim.reshape(terms * size, rows))
    return found.view(terms, size, rows).transpose(1, 2)
