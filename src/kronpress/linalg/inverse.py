"""The inverse of a large matrix in the memory of its Cholesky factor."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

_SIDE = 256  # of the blocks


def inverse_in_place(factor: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """Make the lower Cholesky factor L of a matrix its inverse, L⁻ᵀ L⁻¹, and return it.

    By blocks, so that nearly all of it is matrix products, and nothing is copied as a whole.

    >>> inverse_in_place(torch.linalg.cholesky(torch.tensor([[4.0, 0.0], [0.0, 2.0]]))).diagonal()
    tensor([0.2500, 0.5000])
    """
    starts = range(0, len(factor), _SIDE)
    for start in reversed(starts):  # L⁻¹, from the last columns to the first
        here, below = slice(start, start + _SIDE), slice(start + _SIDE, None)
        corner = factor[here, here]
        identity = torch.eye(len(corner), dtype=factor.dtype, device=factor.device)
        corner.copy_(torch.linalg.solve_triangular(corner, identity, upper=False))
        factor[below, here] = -(factor[below, below] @ (factor[below, here] @ corner))
    for start in starts:  # the product, whose later rows need later rows of L⁻¹ alone
        here, left = slice(start, start + _SIDE), slice(0, start + _SIDE)
        factor[here, left] = factor[start:, here].T @ factor[start:, left]
        factor[:start, here] = factor[here, :start].T
    return factor
