"""What the README shows exists."""

from __future__ import annotations

import re

from tests.docs.pages import PAGES, ROOT, commands

README = PAGES["README.md"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def targets(page: str) -> set[str]:
    return {word for name, words in commands() if name == page and words[0] == "make" for word in words[1:]}


def test_make_targets_exist() -> None:
    assert targets("README.md") == {"demo", "test"}
    every = set().union(*(targets(page) for page in PAGES))
    assert all(re.search(rf"^{target}:", MAKEFILE, flags=re.MULTILINE) for target in every)


def test_the_tree_names_every_room() -> None:
    tree = README.split("```\nsrc/kronpress/\n")[1].split("```")[0]
    source = ROOT / "src" / "kronpress"
    rooms = {f"{path.parent.name}/" for path in source.glob("*/__init__.py")}
    files = {path.name for path in source.glob("*.py") if not path.name.startswith("__")}
    assert [name for name in sorted(rooms | files) if name not in tree] == []


def test_nothing_is_to_be_installed_that_no_registry_has() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py")]
    texts = [*PAGES.values(), *sources]
    assert [text[:40] for text in texts if re.search(r"install[^\n`]*\bkronpress\[", text)] == []
    (extras,) = re.findall(r"pip install '\.\[([\w,-]+)\]'", README)
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert all(f"\n{extra} = [" in pyproject for extra in extras.split(","))
