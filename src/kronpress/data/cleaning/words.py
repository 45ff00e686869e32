"""The words of many texts at once, as numbers: what duplicates and repetitions are counted with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Places = NDArray[np.int64]

LONGEST = 2**18
"""Characters of a document in which words are looked for; what is behind them is neither compared nor counted."""

_STEP = np.uint64(0x9E3779B97F4A7C15)  # odd, so that it has an inverse modulo 2^64
_BACK = np.uint64(pow(int(_STEP), -1, 2**64))
_HALF = np.uint64(32)  # bits
_LETTERS = np.array([byte >= 0x80 or chr(byte).isalnum() for byte in range(256)])
_SIGNS = {0xC2: (2, 0xBF), 0xE2: (3, 0x81), 0xE3: (3, 0x80)}  # punctuation: first byte, length, highest second byte
_SPACELESS = (0xE3, 0xE9)  # first bytes of kana and Chinese characters, each of which counts as a word


@dataclass(frozen=True)
class Words:
    """The words of some documents, one document behind the other.

    Attributes:
        hashes: a number for each word, the same whatever its capitals.
        bounds: where the words of each document begin, and the end of the last one.
    """

    hashes: Hashes
    bounds: Places

    @property
    def counts(self) -> Places:
        """How many words each document has."""
        return np.diff(self.bounds)

    def where(self, keep: NDArray[np.bool_]) -> Words:
        """Return the words of the documents that a flag is set for."""
        counts = self.counts
        return Words(self.hashes[np.repeat(keep, counts)], np.cumsum([0, *counts[keep]], dtype=np.int64))

    def shingles(self, size: int) -> Words:
        """Return each run of `size` words as one; a document with fewer words is one run.

        >>> words_of(["a b c", "a b"]).shingles(2).bounds.tolist()
        [0, 2, 3]
        """
        owner = np.repeat(np.arange(len(self.counts)), self.counts)
        left = self.bounds[owner + 1] - np.arange(len(self.hashes))  # words from here to the end of the document
        runs = self.hashes.copy()
        for offset in range(1, size):
            later = np.zeros_like(self.hashes)
            later[:-offset] = self.hashes[offset:]
            later[left <= offset] = 0
            runs = runs * _STEP + later
        whole = (left >= size) | (left == self.counts[owner])
        return Words(mixed(runs[whole]), _bounds(owner[whole], documents=len(self.counts)))

    def distinct(self) -> Words:
        """Return the upper half of each hash, sorted and once in a document."""
        keys = self._sorted()
        keys = keys[first_of_runs(keys)]
        return Words(keys & np.uint64(0xFFFFFFFF), _bounds(keys >> _HALF, documents=len(self.counts)))

    def most_frequent(self) -> Places:
        """Return how often the most frequent word of each document comes in it.

        >>> words_of(["a b a", "", "c"]).most_frequent().tolist()
        [2, 0, 1]
        """
        keys = self._sorted()
        starts = np.flatnonzero(first_of_runs(keys))
        times, owners = np.diff(np.append(starts, len(keys))), (keys[starts] >> _HALF).astype(np.int64)
        most = np.zeros(len(self.counts), dtype=np.int64)
        if len(owners):
            first = np.flatnonzero(first_of_runs(owners))
            most[owners[first]] = np.maximum.reduceat(times, first)
        return most

    def _sorted(self) -> Hashes:
        """Return the upper half of each hash behind the number of its document, sorted."""
        owner = np.repeat(np.arange(len(self.counts), dtype=np.uint64), self.counts)
        keys: Hashes = np.sort(owner << _HALF | self.hashes >> _HALF)
        return keys


def words_of(texts: Sequence[str]) -> Words:
    """Return the words of texts: runs of letters and digits, without regard to capitals.

    >>> one, other = words_of(["Don't stop"]), words_of(["don t STOP!"])
    >>> one.hashes.tolist() == other.hashes.tolist()
    True
    """
    encoded = [text[:LONGEST].lower().encode() for text in texts]
    data = np.frombuffer(b"\n".join(encoded), dtype=np.uint8)
    inside = _letters(data)
    starts = np.flatnonzero(_beginnings(data, inside))
    bounds = np.cumsum([0, *(len(text) + 1 for text in encoded)])
    if not len(starts):
        return Words(np.zeros(0, dtype=np.uint64), np.zeros(len(texts) + 1, dtype=np.int64))
    powers, inverses = _powers(1 << (len(data) - 1).bit_length())
    values = np.where(inside, data, 0) * powers[: len(data)]  # a polynomial, to be divided by where the word begins
    sums = np.add.reduceat(values, starts)
    return Words(mixed(sums * inverses[starts]), np.searchsorted(starts, bounds).astype(np.int64))


def mixed(values: Hashes) -> Hashes:
    """Spread the bits of numbers (the last steps of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def first_of_runs(values: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Say of each of some sorted values whether it differs from the one before."""
    first = np.ones(len(values), dtype=np.bool_)
    np.not_equal(values[1:], values[:-1], out=first[1:])
    return first


def _letters(data: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Say of each byte of UTF-8 whether it belongs to a word."""
    inside = _LETTERS[data]
    for sign, (length, highest) in _SIGNS.items():
        places = np.flatnonzero(data == sign)
        places = places[data[np.minimum(places + 1, len(data) - 1)] <= highest]
        for offset in range(length):
            inside[places + offset] = False
    return inside


def _beginnings(data: NDArray[np.uint8], inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Say of each byte whether a word begins with it."""
    first = inside.copy()
    first[1:] &= ~inside[:-1]
    low, high = _SPACELESS
    return first | (inside & (data >= low) & (data <= high))


def _bounds(owners: NDArray[np.integer], *, documents: int) -> Places:
    return np.searchsorted(owners, np.arange(documents + 1, dtype=owners.dtype)).astype(np.int64)


@cache
def _powers(length: int) -> tuple[Hashes, Hashes]:
    return tuple(np.cumprod(np.full(length, base)) for base in (_STEP, _BACK))  # type: ignore[return-value]
