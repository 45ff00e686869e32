"""Blocks trained one by one to give what they give in the dense model."""

from kronpress.reconstruct.step import Reconstruct

__all__ = ["Reconstruct"]
