"""From dense weights to factors; one file for each way to choose them."""

from kronpress.factorize.calibrated_pruning import CalibratedPruning
from kronpress.factorize.frequency import VanLoanFrequency
from kronpress.factorize.initialization import INITIALIZATIONS, Initialization, MatrixInitialization
from kronpress.factorize.kronecker import Pruning, VanLoan, VanLoanNormalized
from kronpress.factorize.low_rank import Svd
from kronpress.factorize.request import Request
from kronpress.factorize.step import Factorize
from kronpress.factorize.tensor_train import TensorTrain, TensorTrainRows
from kronpress.factorize.whitened import WhitenedSvd, WhitenedVanLoan

__all__ = [
    "INITIALIZATIONS",
    "CalibratedPruning",
    "Factorize",
    "Initialization",
    "MatrixInitialization",
    "Pruning",
    "Request",
    "Svd",
    "TensorTrain",
    "TensorTrainRows",
    "VanLoan",
    "VanLoanFrequency",
    "VanLoanNormalized",
    "WhitenedSvd",
    "WhitenedVanLoan",
]
