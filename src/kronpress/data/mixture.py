"""Several texts as one, in which each has its share of the tokens however much of it is read."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from operator import itemgetter
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from kronpress.checkpoint import files
from kronpress.data.cached import cached, key_of
from kronpress.data.corpus import Corpus, FilePart, Shares, is_large, stored_text
from kronpress.data.formats import joined
from kronpress.data.tokens import count_tokens, tokenizer_digest

_PIECE = 1000  # characters, some 200 to 250 tokens of English: a window holds pieces of few sources
_PIECES = 256  # that are counted at once
_COUNTED = 2**20  # characters of a text
_BLANK_LINE = re.compile(r"\n[ \t]*\n")


@dataclass(frozen=True)
class WeightedText:
    """A text of a mixture, and its share of the tokens as a multiple of the others'."""

    corpus: Corpus
    weight: float


def mix(texts: Sequence[WeightedText], tokenizer: PreTrainedTokenizerBase, *, counted: int = _COUNTED) -> Corpus:
    """Interleave texts document by document, so that their tokens stand in the ratio of the weights from the start on.

    Short documents go together and long ones are cut at the ends of paragraphs, see `pieces`. A piece comes when half
    of it is due, and ties go by the order of the texts: nothing is random. When a text has given everything, the
    others go on; `shares` of the result says where that is. A single text stays as it is. The tokens of
    about the first `counted` characters of each text are counted, and those of the rest are reckoned from them.

    Where the texts are large together, their mixture is written once into a file in the cache.
    """
    if len(texts) == 1:
        return texts[0].corpus
    streams = [_Stream(text, tokenizer, counted) for text in texts]
    name = " + ".join(f"{stream.name} × {stream.weight:g}" for stream in streams)
    if is_large(sum(text.corpus.size for text in texts)):
        return Corpus(name, *_stored(streams))
    return Corpus(name, "".join(_mixed(streams)), _shares(streams))


def _mixed(streams: Sequence[_Stream]) -> Iterator[str]:
    merged = heapq.merge(*(stream.due() for stream in streams), key=itemgetter(0))
    return joined([piece] for _, piece in merged)


def _stored(streams: Sequence[_Stream]) -> tuple[FilePart, Shares]:
    """Return the mixture of large texts as a file in the cache, and how far it keeps their shares."""
    facts = [(stream.name, stream.text.corpus.fingerprint, stream.weight, stream.counted) for stream in streams]
    key = key_of("mixture", facts, tokenizer_digest(streams[0].tokenizer))
    noted = cached("texts", key) / "shares.json"

    def parts() -> Iterator[str]:
        yield from _mixed(streams)
        files.write_json(noted, asdict(_shares(streams)))

    part = stored_text(key, parts(), needed=sum(stream.text.corpus.size for stream in streams))
    return part, Shares(**files.read_object(noted))


def pieces(text: Iterable[str], *, size: int = _PIECE) -> Iterator[str]:
    r"""Cut a text, which comes in parts, into pieces that put together are the text again.

    A piece ends at the first blank line behind `size` characters, or, where twice as many have none, at the first end
    of a line behind them. Lines are never cut.

    >>> list(pieces(["aaaa\nbbbb\n\ncc\n", "\ndd"], size=5))
    ['aaaa\n', 'bbbb\n\n', 'cc\n\ndd']
    """
    held = ""
    for part in text:
        held, start = held + part, 0
        while end := _end_of_piece(held, start, size=size):
            yield held[start:end]
            start = end
        held = held[start:]
    while held:
        end = _end_of_piece(held, 0, size=size, last=True)
        yield held[:end]
        held = held[end:]


def _end_of_piece(text: str, start: int, *, size: int, last: bool = False) -> int:
    """Return where the piece that begins at `start` ends; 0 where only more of the text tells, if there is more."""
    if not last and len(text) < start + 2 * size:
        return 0
    blank = _BLANK_LINE.search(text, start + size - 1, start + 2 * size)
    if blank:
        return blank.end()
    return text.find("\n", start + size - 1) + 1 or (len(text) if last else 0)


@dataclass
class _Stream:
    """The pieces of one text, and how many tokens it has given so far."""

    text: WeightedText
    tokenizer: PreTrainedTokenizerBase
    counted: int
    tokens: float = 0
    characters: int = 0

    @property
    def name(self) -> str:
        return Path(self.text.corpus.name).name

    @property
    def weight(self) -> float:
        return self.text.weight

    @property
    def reach(self) -> float:
        """How far all of its tokens go, in tokens of a text whose weight is 1."""
        return self.tokens / self.weight

    def due(self) -> Iterator[tuple[float, str]]:
        """Yield each piece after the place where its middle stands in a text whose weight is 1."""
        whole = (piece for piece in pieces(self.text.corpus.pieces()) if piece.strip())
        while batch := list(islice(whole, _PIECES)):
            for piece, tokens in zip(batch, self._counted(batch), strict=True):
                yield (self.tokens + tokens / 2) / self.weight, piece
                self.tokens += tokens
                self.characters += len(piece)

    def _counted(self, batch: Sequence[str]) -> Sequence[float]:
        """Return how many tokens each piece has."""
        if self.characters < self.counted:
            return count_tokens(batch, self.tokenizer)
        return [len(piece) * self.tokens / self.characters for piece in batch]


def _shares(streams: Sequence[_Stream]) -> Shares:
    """Say where the first stream that is exhausted ends in the mixture."""
    first = min(streams, key=lambda stream: stream.reach)
    return Shares(round(first.reach * sum(stream.weight for stream in streams)), first.name)
