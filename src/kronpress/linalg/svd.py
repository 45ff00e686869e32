"""Truncated singular value decomposition through the small side of a matrix."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

_DENSE_SIDE = 512  # above this, a few eigenpairs are cheaper by Lanczos than all of them by LAPACK
_CHUNK_ELEMENTS = 2**22


@dataclass(frozen=True)
class TruncatedSVD:
    """The leading singular triplets and what was discarded: matrix ≈ u · diag(sigma) · vᵀ, in float64."""

    u: Float[Tensor, "rows rank"]
    sigma: Float[Tensor, " rank"]
    v: Float[Tensor, "columns rank"]
    tail: float  # Frobenius norm of the discarded part


def truncated_svd(matrix: Float[Tensor, "rows columns"], *, rank: int) -> TruncatedSVD:
    """Return the best rank-`rank` approximation in the Frobenius norm (Eckart and Young).

    Works through the Gram matrix of the smaller side, accumulated in float64 block by block, so the
    cost is linear in the larger side and no float64 copy of the whole matrix is made. With `rank`
    equal to the smaller side the approximation is exact, however small the singular values.
    """
    if matrix.shape[0] < matrix.shape[1]:
        flipped = truncated_svd(matrix.T, rank=rank)
        return TruncatedSVD(u=flipped.v, sigma=flipped.sigma, v=flipped.u, tail=flipped.tail)
    small = matrix.shape[1]
    assert 1 <= rank <= small, f"rank {rank} of a matrix with shape {tuple(matrix.shape)}"
    blocks = matrix.split(max(1, _CHUNK_ELEMENTS // small))
    gram = torch.zeros(small, small, dtype=torch.float64, device=matrix.device)
    for block in blocks:
        wide = block.double()
        gram.addmm_(wide.T, wide)
    v, tail = _leading_eigenvectors(gram, rank)
    projected = torch.cat([block.double() @ v for block in blocks])  # u · diag(sigma)
    sigma = torch.linalg.vector_norm(projected, dim=0)
    u = projected / torch.where(sigma > 0, sigma, 1.0)
    return TruncatedSVD(u=u, sigma=sigma, v=v, tail=tail)


def truncated_svd_each(
    matrices: Float[Tensor, "batch rows columns"], *, rank: int
) -> tuple[Float[Tensor, "batch rows rank"], Float[Tensor, "batch rank"], Float[Tensor, "batch rank columns"], float]:
    """Return u, sigma and vᵀ of each of many small matrices, and the norm of all that is discarded.

    Computed through the Gram matrix of the smaller side, as `truncated_svd` does with one matrix, in the number format
    that is given. For thousands of small matrices that is several times faster than `torch.linalg.svd`.
    """
    if matrices.shape[1] < matrices.shape[2]:
        u, sigma, v, tail = truncated_svd_each(matrices.mT, rank=rank)
        return v.mT, sigma, u.mT, tail
    values, vectors = torch.linalg.eigh(matrices.mT @ matrices)  # ascending
    v = vectors[..., -rank:].flip(-1)
    projected = matrices @ v  # u · diag(sigma)
    sigma = torch.linalg.vector_norm(projected, dim=1)
    u = projected / torch.where(sigma > 0, sigma, 1.0)[:, None]
    return u, sigma, v.mT, float(values[..., :-rank].clamp_min(0).sum().sqrt())


def _leading_eigenvectors(gram: Float[Tensor, "n n"], rank: int) -> tuple[Float[Tensor, "n rank"], float]:
    """Return eigenvectors by falling eigenvalue, and the square root of the sum of the other eigenvalues."""
    if len(gram) > _DENSE_SIDE and rank <= len(gram) // 16:
        from scipy.sparse.linalg import ArpackError, eigsh

        start = np.random.default_rng(0).standard_normal(len(gram))  # fixed, so that the result is reproducible
        with suppress(ArpackError):  # a zero matrix, or no convergence
            energy, basis = eigsh(gram.cpu().numpy(), k=rank, v0=start)
            tail = float(gram.trace()) - float(energy.sum())
            return torch.from_numpy(basis[:, energy.argsort()[::-1]].copy()).to(gram.device), max(tail, 0.0) ** 0.5
    values, vectors = torch.linalg.eigh(gram)  # ascending
    return vectors[:, -rank:].flip(1), float(values[:-rank].clamp_min(0).sum().sqrt())
