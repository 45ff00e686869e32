"""What is seen of a model while text streams through it."""

from kronpress.activations.moments import Moments
from kronpress.activations.stream import BlockStream
from kronpress.activations.trace import Reading, Sizes, Trace, tracing

__all__ = ["BlockStream", "Moments", "Reading", "Sizes", "Trace", "tracing"]
