"""What was lost and what was gained: perplexity by named protocols, size, speed and samples."""

from kronpress.evaluate.fidelity import Fidelity, fidelity
from kronpress.evaluate.lambada import LAMBADA, LambadaProtocol, LambadaResult, read_lambada
from kronpress.evaluate.perplexity import PROTOCOLS, PerplexityProtocol, PerplexityResult, longest_protocol
from kronpress.evaluate.samples import generate_samples
from kronpress.evaluate.speed import SpeedComparison, SpeedRow, compare_speed
from kronpress.evaluate.step import Evaluate
from kronpress.footprint import Footprint, footprint

__all__ = [
    "LAMBADA",
    "PROTOCOLS",
    "Evaluate",
    "Fidelity",
    "Footprint",
    "LambadaProtocol",
    "LambadaResult",
    "PerplexityProtocol",
    "PerplexityResult",
    "SpeedComparison",
    "SpeedRow",
    "compare_speed",
    "fidelity",
    "footprint",
    "generate_samples",
    "longest_protocol",
    "read_lambada",
]
