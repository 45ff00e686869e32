"""A part of the texts of a mixture, made dirty at known rates, and cleaned again: what cleaning is worth in training.

Of each text the first characters are taken. In the dirty one, half of the lines come again once to three times
elsewhere, and one line in five is boilerplate of a web page.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kronpress.checkpoint.files import write_text
from kronpress.data import read_text
from kronpress.data.cleaning import Cleaning, clean

_CHARACTERS = 100_000  # of each text, some 25,000 tokens
_REPEATED, _COPIES, _BOILERPLATE = 0.5, 3, 0.2
_PAGE = (
    '<div class="nav"><a href="/{0}">Home</a> | <a href="/{0}/about">About</a> | <a href="/contact">Contact</a></div>',
    '<script type="text/javascript">var page{0} = "{0}"; track(page{0});</script>',
    '<p>Copyright &copy; {0}. <a href="/terms">Terms of use</a>. <a href="/privacy">Privacy</a></p>',
    '<li><span class="share">Share this on <a href="http://example.org/{0}">our network</a></span></li>',
)


def texts_of(train: Mapping[str, Mapping[str, Any]], kind: str, folder: Path) -> dict[str, dict[str, Any]]:
    """Return the texts of a mixture as they are (`whole`), or the files that stand for them, made where missing.

    Args:
        train: the texts by their names, as a recipe has them.
        kind: `whole`, `part`, `dirty` or `cleaned`.
        folder: for the files.
    """
    if kind == "whole":
        return {name: dict(share) for name, share in train.items()}
    return {name: {"source": str(_file(name, str(share["source"]), kind, folder))} for name, share in train.items()}


def _file(name: str, source: str, kind: str, folder: Path) -> Path:
    path = folder / kind / (f"{name}.txt" if kind != "cleaned" else name)
    if path.exists():
        return path
    if kind == "cleaned":
        clean(str(_file(name, source, "dirty", folder)), Cleaning(unit="line"), path)
    elif kind == "dirty":
        part = _file(name, source, "part", folder).read_text(encoding="utf-8")
        write_text(path, dirtied(part, seed=len(name)))
    else:
        write_text(path, read_text(source).text[:_CHARACTERS])
    return path


def dirtied(text: str, *, seed: int) -> str:
    """Return a text with copies of its lines and with boilerplate in between, at the rates of this study."""
    draw, lines = random.Random(seed), [line for line in text.split("\n") if line.strip()]
    copies = [line for line in lines if draw.random() < _REPEATED for _ in range(draw.randint(1, _COPIES))]
    count = round(_BOILERPLATE * (len(lines) + len(copies)) / (1 - _BOILERPLATE))
    pages = [draw.choice(_PAGE).format(draw.randint(1, 999)) for _ in range(count)]
    mixed = list(lines)
    for line in [*copies, *pages]:
        mixed.insert(draw.randint(0, len(mixed)), line)
    return "\n".join(mixed) + "\n"
