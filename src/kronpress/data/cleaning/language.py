"""The language of documents, by lingua."""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, field_validator

from kronpress.data.cleaning.batch import Batch, Flags
from kronpress.data.cleaning.filters import FILTERS, Filter
from kronpress.data.cleaning.packages import needed
from kronpress.errors import KronpressError, shown

_CHARACTERS = 2000  # of a document that are looked at


@FILTERS.enroll
class Language(Filter):
    """A document goes whose most likely language is another (lingua, in its mode of low accuracy).

    Attributes:
        code: two letters of ISO 639-1, such as `en`.
        from_words: shorter documents all stay, because their language is a guess.
    """

    kind: ClassVar[str] = "language"
    code: str
    from_words: int = Field(default=10, ge=1)

    @field_validator("code")
    @classmethod
    def _two_letters(cls, code: str) -> str:
        if len(code) != 2 or not code.isascii() or not code.isalpha():
            raise KronpressError(f"language: {shown(code)} is no code of two letters; give one such as en")
        return code.lower()

    def require(self) -> None:
        """Check that lingua is there and knows the language."""
        lingua = _lingua()
        codes = sorted(language.iso_code_639_1.name.lower() for language in lingua.Language.all())
        if self.code not in codes:
            raise KronpressError(f"language: lingua does not know '{self.code}'; choose one of {', '.join(codes)}")

    def drops(self, batch: Batch) -> Flags:
        """Drop what is in another language."""
        bad = np.zeros(len(batch.texts), dtype=np.bool_)
        for index in np.flatnonzero(batch.words.counts >= self.from_words):
            language = _detector().detect_language_of(batch.texts[index][:_CHARACTERS])
            bad[index] = language is not None and language.iso_code_639_1.name.lower() != self.code
        return bad


def _lingua() -> Any:
    return needed("lingua", by="language", package="lingua-language-detector")


@cache
def _detector() -> Any:
    return _lingua().LanguageDetectorBuilder.from_all_languages().with_low_accuracy_mode().build()
