"""The recipes inside the package."""

from __future__ import annotations

from pathlib import Path


def shipped() -> dict[str, Path]:
    """Return the recipes inside the package by name."""
    return {path.stem: path for path in sorted(Path(__file__).with_name("recipes").glob("*.yaml"))}
