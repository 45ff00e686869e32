"""What was lost and what was gained: perplexity by named protocols, size, speed and samples."""

from kronpress.evaluate.fidelity import Fidelity, fidelity
from kronpress.evaluate.footprint import Footprint, footprint
from kronpress.evaluate.perplexity import PROTOCOLS, PerplexityProtocol, PerplexityResult
from kronpress.evaluate.samples import generate_samples
from kronpress.evaluate.speed import SpeedComparison, SpeedRow, compare_speed
from kronpress.evaluate.step import Evaluate

__all__ = [
    "PROTOCOLS",
    "Evaluate",
    "Fidelity",
    "Footprint",
    "PerplexityProtocol",
    "PerplexityResult",
    "SpeedComparison",
    "SpeedRow",
    "compare_speed",
    "fidelity",
    "footprint",
    "generate_samples",
]
