"""Fewer hidden neurons, chosen on text, with what reads them solved anew."""

from kronpress.prune.step import Prune

__all__ = ["Prune"]
