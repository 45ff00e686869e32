"""Where the words come from that stand for others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from kronpress.errors import KronpressError
from kronpress.finetune.augment.words import Word, may_stand


@runtime_checkable
class WordSource(Protocol):
    """Names words that may stand for others."""

    vocabulary: WholeWords

    def digest(self) -> str:
        """Return what tells the model that is asked from others."""

    def offers(self, words: Sequence[Word], *, count: int) -> list[tuple[str, ...]]:
        """Return at most `count` candidates for each word, the best first and never the word itself."""


@dataclass(frozen=True)
class WholeWords:
    """The tokens of a tokenizer that are whole words of letters.

    Attributes:
        ids: of the tokens.
        words: the same as text.
    """

    ids: tuple[int, ...]
    words: tuple[str, ...]

    @classmethod
    def of(cls, tokenizer: Any, *, size: int) -> WholeWords:
        """Find them among the first `size` tokens: those that a word by itself, or after a space, is read as."""
        texts = [text.strip() for text in tokenizer.batch_decode([[index] for index in range(size)])]
        single = {index: text for index, text in enumerate(texts) if may_stand(text)}
        ids: dict[str, int] = {}
        for before in (" ", ""):
            read = _read([before + text for text in single.values()], tokenizer)
            for (index, text), token in zip(single.items(), read, strict=True):
                if token == index:
                    ids.setdefault(text, index)
        return cls(tuple(ids.values()), tuple(ids))

    def require(self, count: int, *, what: str) -> None:
        """Check that there are enough of them to choose from.

        Raises:
            KronpressError: there are not; `what` has the tokens.
        """
        if len(self.ids) <= count:
            raise KronpressError(
                f"augment: {len(self.ids)} tokens of {what} are whole words, too few for candidates={count}; "
                "name a masked language model with a larger vocabulary under model"
            )


def single_tokens(words: Sequence[str], tokenizer: Any) -> list[int | None]:
    """Return the token that each word is read as in the midst of a text; None where it is read as several."""
    read = [_read([before + word for word in words], tokenizer) for before in (" ", "")]
    return [spaced if spaced is not None else bare for spaced, bare in zip(*read, strict=True)]


def without_itself(word: str, others: Sequence[str], *, count: int) -> tuple[str, ...]:
    """Return the first `count` of the candidates that are not the word, whatever its case."""
    return tuple(other for other in others if other.casefold() != word.casefold())[:count]


def _read(texts: Sequence[str], tokenizer: Any) -> list[int | None]:
    if not texts:
        return []
    rows = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return [row[0] if len(row) == 1 else None for row in rows]
