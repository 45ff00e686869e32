"""Low-rank products, the Kronecker sum with vectors for factors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from kronpress.errors import KronpressError
from kronpress.linalg.svd import truncated_svd


@dataclass(frozen=True)
class LowRank:
    """A matrix written as left · right, and how far it is from the matrix it stands for."""

    left: Float[Tensor, "m rank"]
    right: Float[Tensor, "rank n"]
    error: float = 0.0  # norm of the difference that was minimized

    def to_dense(self) -> Float[Tensor, "m n"]:
        """Return the product."""
        return self.left @ self.right


def nearest_low_rank(
    matrix: Float[Tensor, "m n"],
    *,
    rank: int,
    second_moment: Float[Tensor, "n n"] | None = None,
    curvature: Float[Tensor, "m m"] | None = None,
    row_weights: Float[Tensor, " m"] | None = None,
) -> LowRank:
    """Return the product of the given rank nearest to `matrix` in the Frobenius norm (Eckart and Young).

    With the positive definite second moment C = E[x xᵀ] of its inputs it is the nearest in √E‖(W − Ŵ)x‖² = ‖(W − Ŵ)L‖,
    C = L Lᵀ: the decomposition of W L, with L⁻¹ behind it (SVD-LLM, Wang et al., 2024, section 3.1). With the positive
    definite curvature G = R Rᵀ of the loss in its outputs, errors count as ‖Rᵀ(W − Ŵ)L‖, and R⁻ᵀ stands before it;
    positive weights of rows, how often each counts, are a diagonal G.

    Raises:
        KronpressError: the rank is below 1 or above the smaller dimension.
    """
    if not 1 <= rank <= min(matrix.shape):
        raise KronpressError(f"rank is {rank}; a {tuple(matrix.shape)} matrix takes 1 to {min(matrix.shape)}")
    inputs, outputs = (_root(part) for part in (second_moment, curvature))
    counts = None if row_weights is None else row_weights.double().sqrt()[:, None]
    seen = matrix if inputs is None else matrix.double() @ inputs
    seen = seen if outputs is None else outputs.T @ seen.double()
    svd = truncated_svd(seen if counts is None else seen * counts, rank=rank)
    root = svd.sigma.sqrt()
    left, right = svd.u * root, root[:, None] * svd.v.T
    left = left if counts is None else left / counts
    if outputs is not None:
        left = torch.linalg.solve_triangular(outputs.T, left, upper=True)
    if inputs is not None:
        right = torch.linalg.solve_triangular(inputs, right, upper=False, left=False)
    return LowRank(left.to(matrix.dtype), right.to(matrix.dtype), error=svd.tail)


def _root(moment: Float[Tensor, "n n"] | None) -> Float[Tensor, "n n"] | None:
    return None if moment is None else torch.linalg.cholesky(moment.double())
