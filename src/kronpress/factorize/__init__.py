"""From dense weights to factors: what stands there (forms), and how its numbers are found (fits)."""

from kronpress.factorize.fits import FITS, Fit
from kronpress.factorize.forms import FORMS, Form
from kronpress.factorize.presets import PRESETS
from kronpress.factorize.step import Factorize
from kronpress.factorize.target import Target

__all__ = ["FITS", "FORMS", "PRESETS", "Factorize", "Fit", "Form", "Target"]
