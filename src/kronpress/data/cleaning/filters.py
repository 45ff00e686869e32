"""Filters of common practice: what makes a document bad text."""

from __future__ import annotations

import re
import unicodedata
from abc import abstractmethod
from collections.abc import Iterable
from functools import cache
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from kronpress.data.cleaning.batch import Batch, Flags
from kronpress.data.cleaning.words import LONGEST
from kronpress.registry import Shelf
from kronpress.validation import Checked

FILTERS = Shelf[type["Filter"]]("filter")

_COMMON = b" \t\n\r.,;:!?'\"()-_*%$&/=<>@+0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_NO_TEXT = {"Cc", "Cn", "Co", "Sk", "Sm", "So"}  # categories of characters beyond ASCII
_CHARACTERS = 0x20000  # beyond are Chinese characters
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]")
_ELLIPSES = re.compile(r"\.\.\.|…")

Shares = NDArray[np.float64]
"""A number for each document of a batch."""


class Filter(Checked):
    """A rule for bad text; its fields are its hyperparameters."""

    kind: ClassVar[str]

    def require(self) -> None:
        """Check that the packages are there.

        Raises:
            KronpressError: one is missing.
        """

    @abstractmethod
    def drops(self, batch: Batch) -> Flags:
        """Say which documents go."""


@FILTERS.enroll
class Length(Filter):
    """A document goes that has fewer or more words (Gopher, table A1, has 50 and 100,000 for whole web pages).

    Attributes:
        min: words; 1 drops only what has no letter or digit, as documents may be paragraphs and headings.
        max: words, or None as documents may be books; of a very long one they are reckoned from its beginning.
    """

    kind: ClassVar[str] = "words"
    min: int = Field(default=1, ge=0)
    max: int | None = Field(default=None, ge=1)

    def drops(self, batch: Batch) -> Flags:
        """Drop what is too short or too long."""
        counts = batch.words.counts * ratios(max(1, len(text) / LONGEST) for text in batch.texts)
        return (counts < self.min) | (counts > (np.inf if self.max is None else self.max))


@FILTERS.enroll
class Repetition(Filter):
    """A document goes that says the same again and again (the rules of Gopher, table A1, counted in words).

    Attributes:
        lines: the largest share of lines that repeat an earlier one.
        pairs: the largest share of the words that the most frequent run of two words takes.
        triples: likewise, of three words.
        fours: likewise, of four words.
        from_words: shorter documents are not looked at.
    """

    kind: ClassVar[str] = "repetition"
    lines: float = Field(default=0.3, ge=0, le=1)
    pairs: float = Field(default=0.2, ge=0, le=1)
    triples: float = Field(default=0.18, ge=0, le=1)
    fours: float = Field(default=0.16, ge=0, le=1)
    from_words: int = Field(default=100, ge=1)

    def drops(self, batch: Batch) -> Flags:
        """Drop what repeats itself."""
        drops = batch.words.counts >= self.from_words
        if drops.any():
            drops[drops] = self._repeats(batch.where(drops))
        return drops

    def _repeats(self, batch: Batch) -> Flags:
        bad = ratios(map(repeated_lines, batch.texts)) > self.lines
        for size, limit in ((2, self.pairs), (3, self.triples), (4, self.fours)):
            bad |= size * batch.words.shingles(size).most_frequent() > limit * batch.words.counts
        return bad


@FILTERS.enroll
class Symbols(Filter):
    """A document goes that is made of symbols: signs, hashes or ellipses.

    Attributes:
        share: the largest share of characters that are neither letters, digits, space nor common punctuation.
        per_word: the largest number of hashes, and of ellipses, for each word (Gopher, table A1).
        from_words: a shorter document may have as many hashes and ellipses as one of so many words.
    """

    kind: ClassVar[str] = "symbols"
    share: float = Field(default=0.2, ge=0, le=1)
    per_word: float = Field(default=0.1, ge=0)
    from_words: int = Field(default=50, ge=1)

    def drops(self, batch: Batch) -> Flags:
        """Drop what is made of symbols."""
        allowed = self.per_word * np.maximum(batch.words.counts, self.from_words)
        bad = ratios(map(symbol_share, batch.texts)) > self.share
        bad |= ratios(text.count("#") for text in batch.texts) > allowed
        return bad | (ratios(map(_ellipses, batch.texts)) > allowed)


def ratios(values: Iterable[float]) -> Shares:
    """Return numbers, one for each document."""
    return np.fromiter(values, dtype=np.float64)


def repeated_lines(text: str) -> float:
    r"""Return the share of the lines with text that repeat an earlier one.

    >>> repeated_lines("a\nb\na\na")
    0.5
    """
    if text.count("\n") < 2:
        return 0.0
    lines = [line for line in map(str.strip, text.split("\n")) if line]
    return 1 - len(set(lines)) / len(lines) if lines else 0.0


def symbol_share(text: str) -> float:
    """Return the share of characters that are neither letters, digits, space nor common punctuation.

    >>> symbol_share("a # b"), symbol_share("naïve – “yes”")
    (0.2, 0.0)
    """
    signs = len(text.encode("ascii", "ignore").translate(None, _COMMON))
    if not text.isascii():
        signs += sum(character in _signs() for character in _BEYOND_ASCII.findall(text))
    return signs / len(text)


@cache
def _signs() -> frozenset[str]:
    """Return the characters beyond ASCII that are no text."""
    characters = map(chr, range(128, _CHARACTERS))
    return frozenset(character for character in characters if unicodedata.category(character) in _NO_TEXT)


def _ellipses(text: str) -> int:
    return len(_ELLIPSES.findall(text)) if ".." in text or "…" in text else 0
