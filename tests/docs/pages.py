"""The pages of the documentation and what stands in their fences."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
}


def fences(page: str, language: str) -> list[str]:
    """Return the texts of the fenced blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGES[page], flags=re.DOTALL | re.MULTILINE)


def every(language: str) -> dict[str, str]:
    """Return the fenced blocks of all pages in one language, each under its page and number."""
    return {f"{page}:{index}": text for page in PAGES for index, text in enumerate(fences(page, language))}


def commands() -> Iterator[tuple[str, list[str]]]:
    """Go through the command lines of all pages, as page and words, comments left out and long lines joined."""
    for page in PAGES:
        for block in fences(page, "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                if words := shlex.split(line, comments=True):
                    yield page, words


def kronpress_commands() -> list[tuple[str, list[str]]]:
    """Return the pages and arguments of all commands of kronpress, however it is started."""
    starts = (["kronpress"], [".venv/bin/kronpress"])
    direct = [(page, words[1:]) for page, words in commands() if words[:1] in starts]
    modules = [(page, words) for page, words in commands() if "kronpress" in words and "-m" in words]
    return direct + [(page, words[words.index("kronpress") + 1 :]) for page, words in modules]
