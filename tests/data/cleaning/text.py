"""Made-up text, with duplicates where they are wanted."""

from __future__ import annotations

import random
from pathlib import Path

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def prose(documents: int, *, words: int = 60, seed: int = 0) -> list[str]:
    """Return documents of sentences without a common run of three words."""
    draw = random.Random(seed)
    vocabulary = ["".join(draw.choices(_LETTERS, k=draw.randint(2, 9))) for _ in range(2000)]
    sentence = [" ".join(draw.choices(vocabulary, k=10)).capitalize() + "." for _ in range(documents * words // 10)]
    size = words // 10
    return [" ".join(sentence[start : start + size]) for start in range(0, documents * size, size)]


def changed(text: str, draw: random.Random) -> str:
    """Return a text with another word somewhere."""
    words = text.split()
    words[draw.randrange(len(words))] = "otherwise"
    return " ".join(words)


def moved(text: str) -> str:
    """Return a text with its first sentence at its end."""
    first, _, rest = text.partition(". ")
    return f"{rest} {first}."


def filled(documents: int, *, words: int = 100, fields: int = 6) -> list[str]:
    """Return documents that fill a form, each with one of eight words in each field: their mean similarity is 0.7."""
    draw, form = random.Random(0), prose(1, words=words)[0].split()
    texts = []
    for _ in range(documents):
        for field in range(fields):
            form[5 + field * (words // fields)] = f"word{draw.randrange(8)}"
        texts.append(" ".join(form))
    return texts


def stayed(folder: Path) -> list[str]:
    """Return the documents of the plain text that was written."""
    shards = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.txt"))]
    return [text for shard in shards for text in shard.rstrip("\n").split("\n\n")]
