"""A low-rank product, and some rows beside it that are kept as they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from kronpress.errors import KronpressError
from kronpress.linalg.svd import truncated_svd

_ENOUGH = 1e-4  # relative decrease of the squared error in a sweep that is worth another one
_NEGLIGIBLE = 1e-7  # of the largest singular value: what rounding leaves of a zero


@dataclass(frozen=True)
class LowRankSparse:
    """A matrix written as left · right + S with S zero but for some rows, and how far it is from what it stands for.

    Attributes:
        left: (m, rank).
        right: (rank, n).
        sparse: (kept, n), the rows of S that are not zero.
        kept: which rows of the matrix they are, ascending.
        error: norm of the difference that was minimized.
    """

    left: Float[Tensor, "m rank"]
    right: Float[Tensor, "rank n"]
    sparse: Float[Tensor, "kept n"]
    kept: Int[Tensor, " kept"]
    error: float = 0.0

    def to_dense(self) -> Float[Tensor, "m n"]:
        """Return the matrix."""
        return (self.left @ self.right).index_add(0, self.kept.long(), self.sparse)


def nearest_low_rank_sparse(
    matrix: Float[Tensor, "m n"],
    *,
    rank: int,
    rows: int,
    second_moment: Float[Tensor, "n n"] | None = None,
    sweeps: int = 50,
) -> LowRankSparse:
    """Return a product of the given rank and so many kept rows that are near to `matrix` together (LoSparse's form).

    The product is the nearest one to the rows that S does not keep (a truncated singular value decomposition), and S
    keeps the rows that the product misses most. In turn the two are found again, until that hardly helps: the error
    never rises, and a local optimum is reached. There are two starts, and the better end is taken: the decomposition of
    the whole matrix, and the rows that depend least on the others, which finds a matrix of this form again. With the
    positive definite second moment C = E[x xᵀ] of its inputs the distance is √E‖(W − Ŵ)x‖² = ‖(W − Ŵ)L‖, C = L Lᵀ: the
    same problem for W L, whose rows are those of W. Computed in float64 and cast back to the dtype of `matrix`.

    Args:
        matrix: the matrix.
        rank: of the product.
        rows: how many rows S keeps.
        second_moment: C.
        sweeps: how often, at most, product and rows are found again.

    Raises:
        KronpressError: the rank or the rows are below 1, or are more than the matrix has together.
    """
    m, n = matrix.shape
    if rank < 1 or rows < 1 or rank > n or rank + rows > m:
        raise KronpressError(
            f"rank is {rank} and rows is {rows}; a {(m, n)} matrix takes a rank of 1 to {min(m - 1, n)}, "
            f"and 1 row or more, {m} with the rank"
        )
    weight, whitening = matrix.double(), None
    if second_moment is not None:
        whitening = torch.linalg.cholesky(second_moment.double())
    seen = weight if whitening is None else weight @ whitening
    ends = [_alternated(seen, kept, rank=rank, rows=rows, sweeps=sweeps) for kept in _starts(seen, rank, rows)]
    error, basis, kept = min(ends, key=lambda end: end[0])
    left, right = seen @ basis, basis.T
    if whitening is not None:
        right = torch.linalg.solve_triangular(whitening, right, upper=False, left=False)
    sparse = weight[kept] - left[kept] @ right
    norm = torch.linalg.vector_norm(left, dim=0)
    root = torch.where(norm > 0, norm, 1.0).sqrt()
    factors = ((left / root).to(matrix.dtype), (root[:, None] * right).to(matrix.dtype))
    return LowRankSparse(*factors, sparse.to(matrix.dtype), kept, error)


def _starts(matrix: Float[Tensor, "m n"], rank: int, rows: int) -> Iterator[Bool[Tensor, " m"]]:
    """Go through the rows that are kept at first: none, and those of the largest leverage."""
    yield torch.zeros(len(matrix), dtype=torch.bool, device=matrix.device)
    svd = truncated_svd(matrix, rank=min(rank + rows, *matrix.shape))
    leverage = svd.u[:, svd.sigma > _NEGLIGIBLE * svd.sigma[0]].square().sum(dim=1)
    yield _largest(leverage, rows)


def _alternated(
    matrix: Float[Tensor, "m n"], kept: Bool[Tensor, " m"], *, rank: int, rows: int, sweeps: int
) -> tuple[float, Float[Tensor, "n rank"], Int[Tensor, " rows"]]:
    """Find the row space of the product and the kept rows in turn; return the error, a basis, and the rows."""
    last = torch.inf
    for _ in range(1 + sweeps):
        basis = torch.linalg.qr(truncated_svd(matrix[~kept], rank=rank).v).Q
        missed = (matrix - (matrix @ basis) @ basis.T).square().sum(dim=1)
        kept = _largest(missed, rows)
        error = float(missed[~kept].sum())
        if last - error <= _ENOUGH * last:
            break
        last = error
    return error**0.5, basis, kept.nonzero()[:, 0]


def _largest(values: Float[Tensor, " m"], count: int) -> Bool[Tensor, " m"]:
    chosen = torch.zeros_like(values, dtype=torch.bool)
    chosen[values.topk(count).indices] = True
    return chosen
