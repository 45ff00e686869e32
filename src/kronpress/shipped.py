"""The recipes inside the package, and the terms of the models that other packages carry."""

from __future__ import annotations

from pathlib import Path

TERMS = {"gemma3-270m": "Google's Gemma Terms of Use, https://ai.google.dev/gemma/terms"}
"""Under which a model that `bundled:` names comes, where that is no open-source license."""


def shipped() -> dict[str, Path]:
    """Return the recipes inside the package by name."""
    return {path.stem: path for path in sorted(Path(__file__).with_name("recipes").glob("*.yaml"))}
