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
    matrix: Float[Tensor, "m n"], *, rank: int, second_moment: Float[Tensor, "n n"] | None = None
) -> LowRank:
    """Return the product of the given rank nearest to `matrix` in the Frobenius norm (Eckart and Young).

    With the positive definite second moment C = E[x xᵀ] of its inputs it is the nearest in √E‖(W − Ŵ)x‖² = ‖(W − Ŵ)L‖,
    C = L Lᵀ: the decomposition of W L, with L⁻¹ behind it (SVD-LLM, Wang et al., 2024, section 3.1).

    Raises:
        KronpressError: the rank is below 1 or above the smaller dimension.
    """
    if not 1 <= rank <= min(matrix.shape):
        raise KronpressError(f"rank is {rank}; a {tuple(matrix.shape)} matrix takes 1 to {min(matrix.shape)}")
    if second_moment is None:
        svd = truncated_svd(matrix, rank=rank)
        right = svd.v.T
    else:
        whitening = torch.linalg.cholesky(second_moment.double())
        svd = truncated_svd(matrix.double() @ whitening, rank=rank)
        right = torch.linalg.solve_triangular(whitening, svd.v.T, upper=False, left=False)
    root = svd.sigma.sqrt()
    return LowRank((svd.u * root).to(matrix.dtype), (root[:, None] * right).to(matrix.dtype), error=svd.tail)
