"""The command line: one file for each group of commands, with their options; `work` does what they say."""

from kronpress.cli import clean, evaluate, export, look, run, trim, use  # noqa: F401  (each adds its commands)
from kronpress.cli.app import app, main

__all__ = ["app", "main"]
