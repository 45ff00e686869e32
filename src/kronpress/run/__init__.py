"""A run: recipe, folder, manifest and execution."""

from kronpress.run.execution import execute
from kronpress.run.folder import Run
from kronpress.run.recipe import Recipe, read_recipe

__all__ = ["Recipe", "Run", "execute", "read_recipe"]
