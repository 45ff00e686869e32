"""The shelf of quantizers: rules by which weights and inputs of layers are put on grids while they are trained."""

from kronpress.quantizers.bwn import BinaryWeights
from kronpress.quantizers.elastic import Elastic
from kronpress.quantizers.examples import input_examples
from kronpress.quantizers.laq import LossAware
from kronpress.quantizers.least_squares import nearest
from kronpress.quantizers.lsq import LearnedStep
from kronpress.quantizers.maxabs import MaxAbs
from kronpress.quantizers.minmax import MinMax
from kronpress.quantizers.module_wise import ModuleWise
from kronpress.quantizers.mse import LeastSquares
from kronpress.quantizers.progress import go_on_learning, keep_progress, learned_by, take_progress
from kronpress.quantizers.quantizer import BITS, QUANTIZERS, Quantizer
from kronpress.quantizers.reported import input_ranges, number_formats, rounded_sites
from kronpress.quantizers.scheme import TABLES, Scheme, Target, round_inputs
from kronpress.quantizers.storage import Rounding, Storage
from kronpress.quantizers.training import TakeImportance, learned_names, learning, let_learn, take_importance
from kronpress.quantizers.twn import TernaryWeights

__all__ = [
    "BITS",
    "QUANTIZERS",
    "TABLES",
    "BinaryWeights",
    "Elastic",
    "LearnedStep",
    "LeastSquares",
    "LossAware",
    "MaxAbs",
    "MinMax",
    "ModuleWise",
    "Quantizer",
    "Rounding",
    "Scheme",
    "Storage",
    "TakeImportance",
    "Target",
    "TernaryWeights",
    "go_on_learning",
    "input_examples",
    "input_ranges",
    "keep_progress",
    "learned_by",
    "learned_names",
    "learning",
    "let_learn",
    "nearest",
    "number_formats",
    "round_inputs",
    "rounded_sites",
    "take_importance",
    "take_progress",
]
