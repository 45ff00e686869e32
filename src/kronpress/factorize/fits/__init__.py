"""How the numbers of a form are found; one file for each fit."""

from kronpress.factorize.fits.channels import Channels
from kronpress.factorize.fits.fit import FITS, Fit
from kronpress.factorize.fits.frequency import Frequency
from kronpress.factorize.fits.nearest import Nearest
from kronpress.factorize.fits.normalized import Normalized
from kronpress.factorize.fits.whitened import Whitened

__all__ = ["FITS", "Channels", "Fit", "Frequency", "Nearest", "Normalized", "Whitened"]
