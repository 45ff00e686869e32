"""Sums of Kronecker products and the nearest such sum to a matrix."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from kronpress.errors import KronpressError
from kronpress.linalg.shapes import KroneckerShape
from kronpress.linalg.svd import truncated_svd


@dataclass(frozen=True)
class KroneckerSum:
    """A matrix written as Σ left_k ⊗ right_k, and how far it is from the matrix it stands for."""

    left: Float[Tensor, "terms m1 n1"]
    right: Float[Tensor, "terms m2 n2"]
    error: float = 0.0  # Frobenius norm of the difference

    @property
    def terms(self) -> int:
        """The number of summands."""
        return self.left.shape[0]

    @property
    def shape(self) -> KroneckerShape:
        """The factors' shapes."""
        return KroneckerShape(*self.left.shape[1:], *self.right.shape[1:])

    def to_dense(self) -> Float[Tensor, "m n"]:
        """Return the matrix; the same as summing `torch.kron` over the terms."""
        return expand(self.left, self.right)


def expand(left: Float[Tensor, "terms m1 n1"], right: Float[Tensor, "terms m2 n2"]) -> Float[Tensor, "m n"]:
    """Multiply factors out: Σ left_k ⊗ right_k."""
    (_, m1, n1), (_, m2, n2) = left.shape, right.shape
    return torch.einsum("tij,tkl->ikjl", left, right).reshape(m1 * m2, n1 * n2)


def rearrange(matrix: Float[Tensor, "m n"], *, shape: KroneckerShape) -> Float[Tensor, "left_size right_size"]:
    """Return the matrix whose rows are the vectorized (m2, n2) blocks of `matrix`, (m1·n1, m2·n2).

    A Kronecker product rearranges to the outer product vec(left) vec(right)ᵀ, and Frobenius norms are
    kept (Van Loan and Pitsianis, 1993).
    """
    blocks = matrix.reshape(shape.m1, shape.m2, shape.n1, shape.n2).permute(0, 2, 1, 3)
    return blocks.reshape(shape.m1 * shape.n1, shape.m2 * shape.n2)


def nearest_kronecker_sum(
    matrix: Float[Tensor, "m n"],
    *,
    shape: KroneckerShape,
    terms: int = 1,
    row_weights: Float[Tensor, " m"] | None = None,
) -> KroneckerSum:
    """Return the sum of `terms` Kronecker products nearest to `matrix` in the Frobenius norm.

    The two factors of a term get equal norms (KroneckerBERT, section 3.1). Computed in float64 and cast back to the
    dtype of `matrix`; the error is the discarded tail of singular values. With `row_weights`, positive ones, the
    squared error of each row counts that often, and the error is the weighted one; the right factors must be rows then,
    or the nearest sum would no longer be a singular value decomposition.

    Raises:
        KronpressError: the shape is not that of the matrix, more terms than it can use, or weights of rows for right
            factors with several.
    """
    if shape.matrix != tuple(matrix.shape):
        raise KronpressError(f"factors {shape} make a {shape.matrix} matrix, not {tuple(matrix.shape)}")
    shape.require_terms(terms)
    rearranged = rearrange(matrix, shape=shape)
    if row_weights is None:
        svd = truncated_svd(rearranged, rank=terms)
        u, root = svd.u, svd.sigma.sqrt()
    else:
        if shape.m2 != 1:
            raise KronpressError(f"rows have weights only where the right factors {shape.m2} × {shape.n2} are rows")
        weights = row_weights.double().sqrt().repeat_interleave(shape.n1)[:, None]
        svd = truncated_svd(rearranged.double() * weights, rank=terms)
        u = svd.u / weights
        norms = torch.linalg.vector_norm(u, dim=0)
        u, root = u / torch.where(norms > 0, norms, 1.0), (svd.sigma * norms).sqrt()
    left = (u * root).T.reshape(terms, shape.m1, shape.n1)
    right = (svd.v * root).T.reshape(terms, shape.m2, shape.n2)
    return KroneckerSum(left.to(matrix.dtype), right.to(matrix.dtype), error=svd.tail)
