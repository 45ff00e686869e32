"""Factors that are nearest to the weight, whatever the inputs."""

from __future__ import annotations

from typing import ClassVar

from kronpress.factorize.fits.fit import FITS, Fit


@FITS.enroll
class Nearest(Fit):
    """The nearest factors in the Frobenius norm (Van Loan and Pitsianis; Eckart and Young; TT-SVD)."""

    kind: ClassVar[str] = "nearest"
