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


def filled(documents: int, *, words: int = 100, share: float = 0.03, seed: int = 0) -> list[str]:
    """Return documents that fill one template, each with some words of its own: most are similar by 0.7."""
    draw, template = random.Random(seed), prose(1, words=words, seed=seed)[0].split()
    return [
        " ".join(f"own{draw.randrange(10**9)}" if draw.random() < share else word for word in template)
        for _ in range(documents)
    ]


def stayed(folder: Path) -> list[str]:
    """Return the documents of the plain text that was written."""
    shards = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.txt"))]
    return [text for shard in shards for text in shard.rstrip("\n").split("\n\n")]
