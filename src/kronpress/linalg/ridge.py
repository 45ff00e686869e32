"""Second moments of inputs: what they make of a matrix, and how they get an inverse."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from kronpress.errors import KronpressError


def energy(matrix: Float[Tensor, "m n"], moment: Float[Tensor, "n n"]) -> Float[Tensor, ""]:
    """Return E‖Wx‖² of a matrix W over inputs x, of which `moment` is E[x xᵀ]."""
    total: Tensor = torch.linalg.vecdot(matrix @ moment, matrix).sum()
    return total


def positive_definite(moment: Float[Tensor, "n n"], *, ridge: float) -> tuple[Float[Tensor, "n n"], float]:
    """Add the ridge to the diagonal, ten times as much until rounding no longer shows; return what was added as well.

    Args:
        moment: E[x xᵀ].
        ridge: relative to the mean of the diagonal.

    Raises:
        KronpressError: the moment is not finite.
    """
    mean = float(moment.diagonal().mean().clamp_min(1e-30))
    if not torch.isfinite(moment).all():
        raise KronpressError("the model's activations on the calibration text are not finite; are its weights sound?")
    while True:
        regularized = moment + ridge * mean * torch.eye(len(moment), dtype=moment.dtype, device=moment.device)
        if not torch.linalg.cholesky_ex(regularized).info:
            return regularized, ridge * mean
        ridge *= 10
