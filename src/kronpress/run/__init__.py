"""A run: its recipe, its folder and its manifest, and what carries it out."""

from kronpress.run.execution import execute
from kronpress.run.folder import Run, holds_run
from kronpress.run.manifest import Manifest, StepDone
from kronpress.run.publication import execute_into
from kronpress.run.recipe import Recipe, TextSource, make_recipe, read_recipe

__all__ = [
    "Manifest",
    "Recipe",
    "Run",
    "StepDone",
    "TextSource",
    "execute",
    "execute_into",
    "holds_run",
    "make_recipe",
    "read_recipe",
]
