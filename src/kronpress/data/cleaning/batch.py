"""Documents that are looked at together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kronpress.data.cleaning.documents import Document
from kronpress.data.cleaning.words import Words, words_of

Flags = NDArray[np.bool_]
"""One truth for each document of a batch."""

CHARACTERS = 2**18
"""Of a batch: enough for the arrays to pay, and few enough for them to be small."""


@dataclass(frozen=True)
class Batch:
    """Some documents, all plain text or all records."""

    documents: Sequence[Document]

    @cached_property
    def texts(self) -> list[str]:
        """The text of each document."""
        return [document.text for document in self.documents]

    @cached_property
    def words(self) -> Words:
        """The words of all documents."""
        return words_of(self.texts)

    @property
    def records(self) -> bool:
        """Whether the documents are records."""
        return self.documents[0].record is not None

    def where(self, keep: Flags) -> Batch:
        """Return the documents that a flag is set for."""
        if keep.all():
            return self
        chosen = Batch([document for document, stays in zip(self.documents, keep.tolist(), strict=True) if stays])
        vars(chosen)["words"] = self.words.where(keep)  # so that they are not looked for again
        return chosen


def batches(documents: Iterator[Document], *, size: int = CHARACTERS) -> Iterator[Batch]:
    """Cut a stream into batches of at least `size` characters; none has both plain text and records."""
    gathered: list[Document] = []
    gathered_size = 0
    for document in documents:
        if gathered and (document.record is None) != (gathered[0].record is None):
            yield Batch(gathered)
            gathered, gathered_size = [], 0
        gathered.append(document)
        gathered_size += len(document.text)
        if gathered_size >= size:
            yield Batch(gathered)
            gathered, gathered_size = [], 0
    if gathered:
        yield Batch(gathered)
