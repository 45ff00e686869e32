"""Second moments of inputs: what they make of a matrix, and how they get an inverse."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from kronpress.errors import KronpressError

_ROWS = 1024  # that are looked at together


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
    regularized = moment.clone()
    return regularized, _add_ridge(regularized, ridge=ridge)


@contextmanager
def with_ridge(moment: Float[Tensor, "n n"], *, ridge: float) -> Iterator[float]:
    """Have the ridge on the diagonal inside of the context, as `positive_definite` adds it, but without a copy.

    Raises:
        KronpressError: the moment is not finite.
    """
    diagonal = moment.diagonal().clone()
    try:
        yield _add_ridge(moment, ridge=ridge)
    finally:
        moment.diagonal().copy_(diagonal)


def _add_ridge(moment: Float[Tensor, "n n"], *, ridge: float) -> float:
    """Add the ridge in place, and return it."""
    diagonal = moment.diagonal().clone()
    mean = float(diagonal.mean().clamp_min(1e-30))
    if not all(rows.isfinite().all() for rows in moment.split(_ROWS)):
        raise KronpressError("the model's activations on the calibration text are not finite; are its weights sound?")
    while True:
        moment.diagonal().copy_(diagonal + ridge * mean)
        if not torch.linalg.cholesky_ex(moment).info:
            return ridge * mean
        ridge *= 10
