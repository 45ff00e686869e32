"""Adds a page to the API reference for every room of kronpress.

MkDocs calls these functions while it builds the site (`hooks` in mkdocs.yml). A new room gets its page at once, and a
name that moves within its room breaks no page.
"""

from __future__ import annotations

import ast
import logging
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "kronpress"
INTERNAL = {
    "__init__",
    "__main__",
    "bars",
    "cli",
    "disk",
    "imports",
    "lock",
    "memory",
    "notation",
    "processes",
    "shipped",
}


def public_modules() -> list[str]:
    """Return the dotted names of the package itself and of the rooms that others may build on."""
    rooms = {path.stem for path in PACKAGE.glob("*.py")} | {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    return ["kronpress", *(f"kronpress.{room}" for room in sorted(rooms - INTERNAL))]


def hidden_behind_files(name: str) -> Iterator[str]:
    """Go through the functions of a room that are called like a file of it, for which mkdocstrings takes them."""
    init = PACKAGE.parent.joinpath(*name.split("."), "__init__.py")
    if not init.exists():
        return
    text = init.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module:
            source = PACKAGE.parent.joinpath(*node.module.split("."))
            for imported in (alias.name for alias in node.names if f'"{alias.name}"' in text):  # that is, in __all__
                if (source / f"{imported}.py").exists():
                    yield f"{node.module}.{imported}.{imported}"
                elif (init.parent / f"{imported}.py").exists():
                    yield f"{node.module}.{imported}"


def on_startup(*, command: str, dirty: bool) -> None:
    """Print warnings alone while the site is built (with --quiet they would not be counted, and so not end it)."""
    if command == "build":
        logging.getLogger("mkdocs").setLevel(logging.WARNING)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages behind the others in the navigation."""
    assert config.nav is not None
    config.nav.append({"API reference": [{name: f"api/{name}.md"} for name in public_modules()]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Write the pages, which mkdocstrings fills from the docstrings."""
    for name in public_modules():
        room = f"::: {name}\n    options: {{show_root_heading: false, heading_level: 2}}"
        parts = [f"# {name}", room, *(f"::: {path}" for path in hidden_behind_files(name))]
        files.append(File.generated(config, f"api/{name}.md", content="\n\n".join(parts) + "\n"))
    return files
