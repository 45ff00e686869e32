"""The nearest Kronecker sum, as large as the weight."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from kronpress.errors import KronpressError
from kronpress.factorize.fits.fit import FITS, Fit
from kronpress.factorize.forms import Form, KroneckerProblem, Metric, Solution
from kronpress.linalg import KroneckerSum


@FITS.enroll
class Normalized(Fit):
    """The nearest sum, scaled to the norm of the weight: α = ‖W‖/‖Ŵ‖ (Krony-PT, section 3.2).

    With ρ = ‖Ŵ‖/‖W‖ the squared relative error grows from 1 − ρ² to 2 − 2ρ; the gain is the signal's size.
    """

    kind: ClassVar[str] = "normalized"

    def require_form(self, form: Form) -> None:
        """Check that the form is a Kronecker sum."""
        require_kronecker(self, form)

    def solve(self, weight: Float[Tensor, "m n"], problem: KroneckerProblem, metric: Metric) -> Solution:
        """Return the nearest sum and α."""
        nearest = problem.nearest(weight, metric)
        whole = metric.norm(weight)
        kept = max(whole**2 - nearest.error**2, 0.0) ** 0.5
        error = (2 * whole * (whole - kept)) ** 0.5
        return Solution(KroneckerSum(nearest.left, nearest.right, error=error), whole / kept if kept else 1.0)


def require_kronecker(fit: Fit, form: Form) -> None:
    """Check that a fit which knows sums of Kronecker products alone is asked for one.

    Raises:
        KronpressError: it is not.
    """
    if form.kind != "kronecker":
        raise KronpressError(f"fit: {fit.kind} is for form: kronecker, not {form.kind}; choose fit: nearest")
