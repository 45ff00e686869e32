"""Coordinates in which two second moments are one and the same diagonal: what both sides of a product need most."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Balanced:
    """Coordinates y = `into` x of the right side and `out`ᵀ x of the left one, the most important ones first.

    Attributes:
        into: the inverse of `out`; of every moment, where there are several.
        out: that of `into`.
        importance: of each coordinate: the diagonal that both moments have in these coordinates.
    """

    into: Float[Tensor, "*batch n n"]
    out: Float[Tensor, "*batch n n"]
    importance: Float[Tensor, "*batch n"]


def balance(left: Float[Tensor, "*batch n n"], right: Float[Tensor, "*batch n n"]) -> Balanced:
    """Return the coordinates that balance E[a aᵀ] and E[b bᵀ], both positive definite.

    Of all projections P of rank r, the one onto the first r of them makes E(aᵀ (1 − P) b)² least for a and b that are
    independent. With the rows of a matrix for a it is the truncated singular value decomposition on whitened inputs
    (MoDeGPT's Type III); in control theory it is balanced truncation (Moore, 1981).

    >>> balance(torch.eye(2) * 4, torch.eye(2)).importance
    tensor([2., 2.])
    """
    a, b = torch.linalg.cholesky(left), torch.linalg.cholesky(right)
    turned_a, values, turned_b = torch.linalg.svd(a.mT @ b)
    root = values.sqrt()
    into = (turned_a.mT @ a.mT) / root[..., None]
    out = (b @ turned_b.mT) / root[..., None, :]
    return Balanced(into, out, values)
