"""Low-rank products, the Kronecker sum with vectors for factors."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from kronpress.errors import KronpressError
from kronpress.linalg.svd import truncated_svd


@dataclass(frozen=True)
class LowRank:
    """A matrix written as left · right, and how far it is from the matrix it stands for."""

    left: Float[Tensor, "m rank"]
    right: Float[Tensor, "rank n"]
    error: float = 0.0  # Frobenius norm of the difference

    def to_dense(self) -> Float[Tensor, "m n"]:
        """Return the product."""
        return self.left @ self.right


def nearest_low_rank(matrix: Float[Tensor, "m n"], *, rank: int) -> LowRank:
    """Return the product of the given rank nearest to `matrix` in the Frobenius norm (Eckart and Young).

    Raises:
        KronpressError: the rank is below 1 or above the smaller dimension.
    """
    if not 1 <= rank <= min(matrix.shape):
        raise KronpressError(f"rank is {rank}; a {tuple(matrix.shape)} matrix takes 1 to {min(matrix.shape)}")
    svd = truncated_svd(matrix, rank=rank)
    root = svd.sigma.sqrt()
    return LowRank((svd.u * root).to(matrix.dtype), (svd.v * root).T.to(matrix.dtype), error=svd.tail)
