"""The pieces of a tokenizer: which of them others are made of, and which stay."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from kronpress.errors import KronpressError

_KINDS = ("BPE", "Unigram", "WordLevel", "WordPiece")
_MULTIPLE = 8  # of rows in a table


@dataclass(frozen=True)
class Pieces:
    """What the library tokenizers holds of a tokenizer.

    Attributes:
        content: its `tokenizer.json`.
    """

    content: dict[str, Any]

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> Pieces:
        """Return the pieces of a tokenizer.

        Raises:
            KronpressError: it is not one of the library tokenizers, or of a kind whose pieces are not known here.
        """
        name = type(tokenizer).__name__
        if not tokenizer.is_fast:
            raise KronpressError(f"{name} is written in Python, and only tokenizers with a tokenizer.json are trimmed")
        pieces = cls(json.loads(tokenizer.backend_tokenizer.to_str()))
        if pieces.model["type"] not in _KINDS:
            raise KronpressError(
                f"{name} is of the kind {pieces.model['type']}, and those that are trimmed are {', '.join(_KINDS)}"
            )
        return pieces

    @property
    def model(self) -> dict[str, Any]:
        """The part that holds the pieces."""
        part: dict[str, Any] = self.content["model"]
        return part

    @cached_property
    def ids(self) -> dict[str, int]:
        """The id of each piece, without tokens that were added."""
        vocabulary = self.model["vocab"]
        if isinstance(vocabulary, list):  # pieces with their scores
            return {piece: number for number, (piece, _) in enumerate(vocabulary)}
        return dict(vocabulary)

    @cached_property
    def names(self) -> dict[int, str]:
        """The piece of each id."""
        return {number: piece for piece, number in self.ids.items()}

    @cached_property
    def merges(self) -> dict[tuple[str, str], int]:
        """The rank of each pair that byte-pair encoding joins; the lowest is joined first."""
        pairs = (pair.split(" ", 1) if isinstance(pair, str) else pair for pair in self.model.get("merges", ()))
        return {(left, right): rank for rank, (left, right) in enumerate(pairs)}

    @cached_property
    def added(self) -> frozenset[int]:
        """The ids of the tokens that stand beside the pieces, such as special ones."""
        return frozenset(int(token["id"]) for token in self.content["added_tokens"])

    @cached_property
    def always(self) -> frozenset[int]:
        """The ids without which some text could not be read: added tokens, the unknown one, and the smallest pieces.

        The smallest are the bytes that stand for what is unknown, where the tokenizer has them, else all characters.
        """
        unknown = self.ids.get(self.model.get("unk_token") or "", self.model.get("unk_id"))
        smallest = filter(self._is_byte if self.model.get("byte_fallback") else self._is_character, self.ids)
        return self.added.union(map(self.ids.__getitem__, smallest), () if unknown is None else (unknown,))

    def behind(self, number: int) -> set[int]:
        """Return the ids of the pieces through which byte-pair encoding comes to this one, and its own.

        A piece has them wherever it stands: pairs are joined inside of it in the same order, since none joins what is
        inside with what is around it. Other kinds of tokenizers look for whole pieces.
        """
        if not self.merges or number not in self.names:
            return {number}
        ids, parts = {number}, self._characters(self.names[number])
        while True:
            ids.update(self.ids[part] for part in parts if part in self.ids)
            ranks = [self.merges.get(pair, len(self.merges)) for pair in pairwise(parts)]
            lowest = min(ranks, default=len(self.merges))
            if lowest == len(self.merges):
                return ids
            at = ranks.index(lowest)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]

    def kept(self, counts: Int[Tensor, " rows"], *, keep: int | None, needed: frozenset[int]) -> list[int]:
        """Return the ids that stay, in ascending order.

        Args:
            counts: how often each id stands in a text.
            keep: how many stay at most, the most frequent ones; by default all that stand in the text, and more of
                them up to a multiple of 8.
            needed: ids that stay in any case, beside those in `always`.

        Raises:
            KronpressError: `keep` is less than those that stay in any case, or more than there are.
        """
        rows = len(counts)
        stay = {number for number in self.always | needed if number < rows}
        if keep is not None and not len(stay) <= keep <= rows:
            raise KronpressError(
                f"keep is {keep:,}; give a number from {len(stay):,} (special tokens, and bytes or characters, without "
                f"which some text could not be read) to {rows:,} (all)"
            )
        limit = keep
        for number in counts.argsort(descending=True, stable=True).tolist():
            if limit is None and not counts[number]:
                limit = min(rows, -(-len(stay) // _MULTIPLE) * _MULTIPLE)
            if len(stay) == limit:
                break
            if number in self.names:
                more = self.behind(number) - stay
                if limit is None or len(stay) + len(more) <= limit:
                    stay |= more
        return sorted(stay)

    def _characters(self, piece: str) -> list[str]:
        """Return the parts from which byte-pair encoding begins."""
        stem = piece.removesuffix(self.model.get("end_of_word_suffix") or "")
        parts = list(stem)
        if parts:
            parts[-1] += piece[len(stem) :]
        return parts

    def _is_character(self, piece: str) -> bool:
        prefix, suffix = (self.model.get(key) or "" for key in ("continuing_subword_prefix", "end_of_word_suffix"))
        return len(piece.removeprefix(prefix).removesuffix(suffix)) == 1

    def _is_byte(self, piece: str) -> bool:
        return len(piece) == len("<0x00>") and piece.startswith("<0x") and piece.endswith(">")
