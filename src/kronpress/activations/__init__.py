"""What is seen of a model while text streams through it."""

from kronpress.activations.curvature import Curvature, curvatures
from kronpress.activations.moments import Moments
from kronpress.activations.progress import WalkProgress
from kronpress.activations.resident import blocks_in_files, parked, resident
from kronpress.activations.statistics import InputMoments, Statistic, noted_outputs
from kronpress.activations.stream import BlockStream
from kronpress.activations.trace import Reading, Sizes, Trace, tracing
from kronpress.activations.walk import Stop, walk

__all__ = [
    "BlockStream",
    "Curvature",
    "InputMoments",
    "Moments",
    "Reading",
    "Sizes",
    "Statistic",
    "Stop",
    "Trace",
    "WalkProgress",
    "blocks_in_files",
    "curvatures",
    "noted_outputs",
    "parked",
    "resident",
    "tracing",
    "walk",
]
