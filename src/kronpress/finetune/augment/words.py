"""The words of a text that may be replaced by others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_STOP_WORDS = """
    a about above after again against ain all am an and any are aren as at be because been before being below between
    both but by can could couldn d did didn do does doesn doing don down during each few for from further had hadn has
    hasn have haven having he her here hers herself him himself his how i if in into is isn it its itself just ll m ma
    me might mightn more most must mustn my myself needn no nor not now o of off on once only or other our ours
    ourselves out over own re s same shan she should shouldn so some such t than that the their theirs them themselves
    then there these they this those through to too under until up ve very was wasn we were weren what when where which
    while who whom why will with won would wouldn y you your yours yourself yourselves
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())
"""Words of English that carry little meaning, or turn it round, and stay: as in TinyBERT's list, after that of NLTK."""

_RUNS = re.compile(r"\w+")


@dataclass(frozen=True)
class Word:
    """A word of a text, and where in it the word stands.

    Example:
        >>> str(Word("a cold sea", 2, 6))
        'cold'
    """

    text: str
    start: int
    end: int

    def __str__(self) -> str:
        return self.text[self.start : self.end]


def replaceable(text: str) -> list[Word]:
    """Return the words of a text that are nothing but letters, two at least, and no stop words.

    Example:
        >>> [str(word) for word in replaceable("It isn't the 2nd Sea, nor a lake.")]
        ['Sea', 'lake']
    """
    words = [Word(text, *run.span()) for run in _RUNS.finditer(text)]
    return [word for word in words if may_stand(str(word)) and str(word).casefold() not in STOP_WORDS]


def may_stand(word: str) -> bool:
    """Say whether a word is one that can be replaced or stand for another, stop words included."""
    return len(word) > 1 and word.isalpha()


def replaced(text: str, others: Mapping[Word, str]) -> str:
    """Return a text with other words in place of some of its own.

    Example:
        >>> replaced("a cold sea", {Word("a cold sea", 2, 6): "warm"})
        'a warm sea'
    """
    for word in sorted(others, key=lambda word: -word.start):
        text = text[: word.start] + others[word] + text[word.end :]
    return text
