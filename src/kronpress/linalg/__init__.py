"""Plain tensors: Kronecker algebra, low rank, and least squares with a choice of columns."""

from kronpress.linalg.kronecker import KroneckerSum, expand, nearest_kronecker_sum, rearrange
from kronpress.linalg.low_rank import LowRank, nearest_low_rank
from kronpress.linalg.selection import eliminate, refit
from kronpress.linalg.shapes import KroneckerShape, divisors
from kronpress.linalg.svd import TruncatedSVD, truncated_svd

__all__ = [
    "KroneckerShape",
    "KroneckerSum",
    "LowRank",
    "TruncatedSVD",
    "divisors",
    "eliminate",
    "expand",
    "nearest_kronecker_sum",
    "nearest_low_rank",
    "rearrange",
    "refit",
    "truncated_svd",
]
