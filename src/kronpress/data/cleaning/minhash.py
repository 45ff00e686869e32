"""Near duplicates by MinHash (Broder, 1997) and bands (Leskovec et al., Mining of Massive Datasets, 3.4)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from kronpress.data.cleaning.batch import Batch, Flags
from kronpress.data.cleaning.duplicates import DUPLICATES, Bands, Exact, NearDuplicates
from kronpress.data.cleaning.packages import needed
from kronpress.data.cleaning.words import Hashes, Words, mixed


@DUPLICATES.enroll
class MinHash(NearDuplicates):
    """The same text, or sets of word shingles whose Jaccard similarity is at least `threshold`.

    Candidates agree in all rows of a band of their MinHash signatures: a pair of similarity s becomes one with a
    probability of 1 − (1 − s^rows)^bands, which is 0.9998 at 0.8. The similarity of candidates is then computed, so
    that none goes that is less similar. Documents are looked at in their order, each with the earlier candidates that
    stay: with all of them, unless more than `latest` agree in a band.

    Attributes:
        shingle: words that make a shingle.
        rows: numbers of a signature in a band; `bands` × `rows` is how many permutations there are.
        seed: of the permutations.
        min_words: shorter documents all stay, such as the answers of a dialogue and headings.
    """

    kind: ClassVar[str] = "minhash"
    threshold: float = Field(default=0.8, gt=0, le=1)
    shingle: int = Field(default=3, ge=1, le=32)
    bands: int = Field(default=16, ge=1, le=256)
    rows: int = Field(default=4, ge=1, le=64)
    seed: int = Field(default=0, ge=0)
    min_words: int = Field(default=8, ge=1)

    def require(self) -> None:
        """Check that rensa is there."""
        needed("rensa", by="duplicates: minhash", package="rensa")

    def takes(self, batch: Batch) -> Flags:
        """Compare those that are long enough."""
        return Exact(min_words=self.min_words).takes(batch)

    def keys(self, batch: Batch) -> Hashes:
        """Return a digest of each text."""
        return Exact(min_words=self.min_words).keys(batch)

    def shingles(self, batch: Batch) -> Words:
        """Return the set of shingles of each document."""
        return batch.words.shingles(self.shingle).distinct()

    def sketch(self, shingles: Words) -> Bands:
        """Return a number for each document and band, made of the rows of the band."""
        rensa = needed("rensa", by="duplicates: minhash", package="rensa")
        matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
            mixed(shingles.hashes), shingles.bounds.astype(np.uint64), num_perm=self.bands * self.rows, seed=self.seed
        )
        signatures = np.array(matrix.to_rows(), dtype=np.uint64).reshape(-1, self.bands, self.rows)
        bands = np.zeros(signatures.shape[:2], dtype=np.uint64)
        for row in range(self.rows):
            bands = mixed(bands + signatures[:, :, row] + np.uint64(1))
        return bands
