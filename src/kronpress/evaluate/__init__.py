"""What was lost and what was gained: perplexity by named protocols, size, speed and samples."""

from kronpress.evaluate.fidelity import fidelity
from kronpress.evaluate.lambada import LAMBADA, LambadaProtocol, read_lambada
from kronpress.evaluate.perplexity import PROTOCOLS, PerplexityProtocol, longest_protocol
from kronpress.evaluate.samples import generate_samples
from kronpress.evaluate.speed import compare_speed
from kronpress.evaluate.step import Evaluate
from kronpress.evaluate.text_set import TextSet
from kronpress.footprint import footprint
from kronpress.records import (
    Fidelity,
    Footprint,
    LambadaScore,
    Perplexity,
    SpeedComparison,
    SpeedRow,
)

__all__ = [
    "LAMBADA",
    "PROTOCOLS",
    "Evaluate",
    "Fidelity",
    "Footprint",
    "LambadaProtocol",
    "LambadaScore",
    "Perplexity",
    "PerplexityProtocol",
    "SpeedComparison",
    "SpeedRow",
    "TextSet",
    "compare_speed",
    "fidelity",
    "footprint",
    "generate_samples",
    "longest_protocol",
    "read_lambada",
]
