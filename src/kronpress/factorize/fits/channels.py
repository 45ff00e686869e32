"""Every k-th channel of a weight, with the others as faint copies."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from kronpress.errors import KronpressError
from kronpress.factorize.fits.fit import FITS, Fit
from kronpress.factorize.fits.normalized import require_kronecker
from kronpress.factorize.forms import Form, KroneckerProblem, Metric, Solution
from kronpress.factorize.target import Target
from kronpress.linalg import KroneckerSum


@FITS.enroll
class Channels(Fit):
    """Every k-th input or output channel, with the channels between as ε copies (Krony-PT, section 3.4).

    For a right factor of shape (1, k) left is W[:, ::k] and right is [1, ε, …]; for (k, 1) left is
    W[::k, :] and right its transpose. The published ε is 0.1; 0 leaves dead factors.

    Attributes:
        epsilon: ε.
    """

    kind: ClassVar[str] = "channels"
    epsilon: float = Field(default=0.1)

    def require_form(self, form: Form) -> None:
        """Check that the form is a Kronecker sum."""
        require_kronecker(self, form)

    def require(self, target: Target, form: Form) -> None:
        """Check that there is one term, and that its right factor is a row or a column."""
        for problem in form.problems(target):
            shape = problem.shape
            if problem.terms != 1 or 1 not in (shape.m2, shape.n2):
                raise KronpressError(
                    f"channels takes one term and a right factor that is a row or a column, not {problem.terms} terms "
                    f"of {shape.m2} × {shape.n2}; choose right: [1, 2]"
                )

    def solve(self, weight: Float[Tensor, "m n"], problem: KroneckerProblem, metric: Metric) -> Solution:
        """Return the chosen channels and the row or column [1, ε, …]."""
        shape = problem.shape
        right = torch.full((1, shape.m2, shape.n2), self.epsilon, dtype=weight.dtype, device=weight.device)
        right[:, 0, 0] = 1.0
        left = weight[:: shape.m2, :: shape.n2][None].clone()
        missed = weight - KroneckerSum(left, right).to_dense()
        return Solution(KroneckerSum(left, right, error=metric.norm(missed)))
