"""Train the student to answer like its teacher, on text."""

from kronpress.distill.step import Distill

__all__ = ["Distill"]
