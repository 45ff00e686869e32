"""Put the numbers of a model on grids of a few bits, without training."""

from kronpress.quantize.compensated import compensated
from kronpress.quantize.fits import QUANTIZE_FITS, Compensated, Nearest
from kronpress.quantize.step import Quantize

__all__ = ["QUANTIZE_FITS", "Compensated", "Nearest", "Quantize", "compensated"]
