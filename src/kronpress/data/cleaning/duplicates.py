"""What makes two documents duplicates: a shelf of rules."""

from __future__ import annotations

import hashlib
import string
from abc import abstractmethod
from collections.abc import Iterable
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from kronpress.data.cleaning.batch import Batch, Flags
from kronpress.data.cleaning.words import Hashes, Words
from kronpress.registry import Shelf
from kronpress.validation import Checked

DUPLICATES = Shelf[type["Duplicates"]]("rule for duplicates")

Bands = NDArray[np.uint64]
"""A number for each document and band; documents that share one in a band are compared."""

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ENDS = 4  # words


class Duplicates(Checked):
    """A rule for duplicates; its fields are its hyperparameters.

    Attributes:
        compares: whether there are duplicates at all.
        reason: what reports call those with the same key.
    """

    kind: ClassVar[str]
    compares: ClassVar[bool] = True
    reason: ClassVar[str] = "exact duplicate"

    def require(self) -> None:
        """Check that the packages are there.

        Raises:
            KronpressError: one is missing.
        """

    @abstractmethod
    def takes(self, batch: Batch) -> Flags:
        """Say which documents are compared at all."""

    @abstractmethod
    def keys(self, batch: Batch) -> Hashes:
        """Return two numbers for each document; documents with the same two are duplicates."""


class NearDuplicates(Duplicates):
    """A rule that also finds documents which are similar: candidates by bands, then the exact similarity.

    Attributes:
        threshold: Jaccard similarity of the sets of shingles from which on the later document goes.
        bands: how many numbers of a document are compared to find candidates.
        latest: with how many of the earlier documents that agree with it in a band, and stay, a document is compared:
            the latest ones. The others may be similar to it and are not noticed, unless they agree in another band.
    """

    threshold: float
    bands: int
    latest: int = Field(default=128, ge=1)

    @abstractmethod
    def shingles(self, batch: Batch) -> Words:
        """Return the set of shingles of each document."""

    @abstractmethod
    def sketch(self, shingles: Words) -> Bands:
        """Return the numbers of each document."""


@DUPLICATES.enroll
class NoDuplicates(Duplicates):
    """Every document stays, how often it may come."""

    kind: ClassVar[str] = "none"
    compares: ClassVar[bool] = False

    def takes(self, batch: Batch) -> Flags:
        """Compare none."""
        return np.zeros(len(batch.texts), dtype=np.bool_)

    def keys(self, batch: Batch) -> Hashes:
        """Return what is never read."""
        return np.zeros((len(batch.texts), 2), dtype=np.uint64)


@DUPLICATES.enroll
class Exact(Duplicates):
    """The same text, but for space around it.

    Attributes:
        min_words: shorter documents all stay, such as the answers of a dialogue and headings.
    """

    kind: ClassVar[str] = "exact"
    min_words: int = Field(default=8, ge=1)

    def takes(self, batch: Batch) -> Flags:
        """Compare those that are long enough."""
        return batch.words.counts >= self.min_words

    def keys(self, batch: Batch) -> Hashes:
        """Return a digest of each text."""
        return digests(text.strip().encode() for text in batch.texts)


@DUPLICATES.enroll
class ShortStudy(Duplicates):
    """The key of the Short Study (Li et al., 2021): the length without punctuation, and the first and last four words.

    It takes any two documents for duplicates that agree in both, whatever stands between; it is here to be compared.
    """

    kind: ClassVar[str] = "short_study"
    reason: ClassVar[str] = "same length and ends"

    def takes(self, batch: Batch) -> Flags:
        """Compare all."""
        return np.ones(len(batch.texts), dtype=np.bool_)

    def keys(self, batch: Batch) -> Hashes:
        """Return a digest of each key."""
        return digests(study_key(text).encode() for text in batch.texts)


def study_key(text: str) -> str:
    """Return the length of a text without ASCII punctuation and the MD5 of its first four and last four words.

    >>> study_key("1 2 3 4 five 6 7 8 9") == study_key("1 2 3 4 four 6 7 8 9")
    True
    """
    words = text.split()
    ends = " ".join(words[:_ENDS] + words[-_ENDS:])
    return f"{len(text.translate(_PUNCTUATION))} {hashlib.md5(ends.encode(), usedforsecurity=False).hexdigest()}"


def digests(values: Iterable[bytes]) -> Hashes:
    """Return the 128 bits of a digest of each value as two numbers."""
    joined = b"".join(hashlib.blake2b(value, digest_size=16).digest() for value in values)
    return np.frombuffer(joined, dtype="<u8").reshape(-1, 2).astype(np.uint64)
