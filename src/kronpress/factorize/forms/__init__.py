"""What can stand in the place of a dense matrix; one file for each form."""

from kronpress.factorize.forms.form import FORMS, Form, Metric, Norm, Solution, Solver
from kronpress.factorize.forms.grouped import Grouped
from kronpress.factorize.forms.kronecker import Kronecker, KroneckerProblem
from kronpress.factorize.forms.losparse import LoSparse, LowRankSparseProblem
from kronpress.factorize.forms.low_rank import LowRank
from kronpress.factorize.forms.monarch import Monarch, MonarchProblem
from kronpress.factorize.forms.tensor_train import TensorTrain, TensorTrainRows

__all__ = [
    "FORMS",
    "Form",
    "Grouped",
    "Kronecker",
    "KroneckerProblem",
    "LoSparse",
    "LowRank",
    "LowRankSparseProblem",
    "Metric",
    "Monarch",
    "MonarchProblem",
    "Norm",
    "Solution",
    "Solver",
    "TensorTrain",
    "TensorTrainRows",
]
