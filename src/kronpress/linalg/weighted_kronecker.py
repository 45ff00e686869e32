"""The sum of Kronecker products that is nearest for the inputs that a matrix gets."""

from __future__ import annotations

from collections.abc import Callable

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
_BENT_SWEEPS, _BENT_STEPS = 12, 4  # with a curvature: sweeps at most, and steps for each side
_BENT_ENOUGH = 1e-3


def weighted_kronecker_sum(
    matrix: Float[Tensor, "m n"],
    *,
    shape: KroneckerShape,
    terms: int = 1,
    second_moment: Float[Tensor, "n n"],
    curvature: Float[Tensor, "m m"] | None = None,
) -> KroneckerSum:
    """Return a sum of `terms` Kronecker products near to `matrix` in √E‖(W − Ŵ)x‖², with C = E[x xᵀ] of its inputs.

    From the nearest sum in the Frobenius norm, left and right factors are solved for in turn, all terms together, until
    that no longer helps (alternating least squares, Van Loan and Pitsianis, 1993, section 5, here with C in between):
    a local optimum. In float64, cast back to the dtype of `matrix`; the two factors of a term get equal norms.

    With the curvature G of the loss in its outputs, the distance is tr(G (W − Ŵ) C (W − Ŵ)ᵀ)^½. Then the two are
    improved in turn, from the sum without G on, by a few steps of conjugate gradients each: the error never rises.

    Raises:
        KronpressError: the shape is not that of the matrix, or more terms than it can use.
    """
    start = nearest_kronecker_sum(matrix, shape=shape, terms=terms)
    weight, second = matrix.double(), second_moment.double()
    left, right = _alternated(weight, second, start)
    if curvature is not None and terms < shape.max_terms:
        left, right = _bent(weight, second, curvature.double(), (left, right))
    rest = weight - expand(left, right)
    seen = rest if curvature is None else torch.linalg.cholesky(curvature.double()).T @ rest
    error = energy(seen, second).clamp_min(0).sqrt()
    norms = [torch.linalg.vector_norm(factors, dim=(1, 2), keepdim=True).clamp_min(_LEAST) for factors in (left, right)]
    root = (norms[0] * norms[1]).sqrt()
    left, right = (left / norms[0] * root).to(matrix.dtype), (right / norms[1] * root).to(matrix.dtype)
    return KroneckerSum(left, right, error=float(error))


def _alternated(
    weight: Float[Tensor, "m n"], second: Float[Tensor, "n n"], start: KroneckerSum
) -> tuple[Float[Tensor, "terms m1 n1"], Float[Tensor, "terms m2 n2"]]:
    """Solve for the factors in turn, all outputs counting alike."""
    shape, terms = start.shape, start.terms
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
    return left, right


def _bent(
    weight: Float[Tensor, "m n"],
    second: Float[Tensor, "n n"],
    curvature: Float[Tensor, "m m"],
    factors: tuple[Float[Tensor, "terms m1 n1"], Float[Tensor, "terms m2 n2"]],
) -> tuple[Float[Tensor, "terms m1 n1"], Float[Tensor, "terms m2 n2"]]:
    """Improve the factors in turn where outputs count as the curvature says."""
    (left, right), blocks = factors, "ikjl,tkl->tij"
    (_, m1, n1), (_, m2, n2) = left.shape, right.shape

    def weighed(error: Float[Tensor, "m n"]) -> Float[Tensor, "m1 m2 n1 n2"]:
        return (curvature @ error @ second).view(m1, m2, n1, n2)

    rest, missed = weight - expand(left, right), torch.inf
    for _ in range(_BENT_SWEEPS):
        left = left + _conjugate_gradients(
            lambda step, right=right: torch.einsum(blocks, weighed(expand(step, right)), right),  # type: ignore[misc]
            torch.einsum(blocks, weighed(rest), right),
        )
        rest = weight - expand(left, right)
        right = right + _conjugate_gradients(
            lambda step, left=left: torch.einsum("ikjl,tij->tkl", weighed(expand(left, step)), left),  # type: ignore[misc]
            torch.einsum("ikjl,tij->tkl", weighed(rest), left),
        )
        rest = weight - expand(left, right)
        before, missed = missed, float((rest * weighed(rest).view_as(rest)).sum())
        if missed >= (1 - _BENT_ENOUGH) * before:
            break
    return left, right


def _conjugate_gradients(apply: Callable[[Tensor], Tensor], residual: Tensor) -> Tensor:
    """Return what a few steps from zero come to towards x with `apply`(x) = residual, `apply` being positive."""
    found, direction = torch.zeros_like(residual), residual
    size = residual.square().sum()
    for _ in range(_BENT_STEPS):
        if not size > 0:
            break
        image = apply(direction)
        step = size / (direction * image).sum()
        found, residual = found + step * direction, residual - step * image
        before, size = size, residual.square().sum()
        direction = residual + size / before * direction
    return found


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
