"""Trim the vocabulary of a model and its tokenizer to a text."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kronpress.data import Corpus, require_known, stored_tokens, tokenize
from kronpress.errors import KronpressError
from kronpress.families import vocabulary_size
from kronpress.layers import stored_numbers
from kronpress.records import TrimRecord
from kronpress.trim.pieces import Pieces
from kronpress.trim.rows import ids_in_configs, keep_rows, require_dense_tables
from kronpress.trim.tokenizer import require_alike, trimmed_tokenizer

_COMPARED = 2**22  # characters of a text that both tokenizers cut


def trim(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    text: Corpus,
    *,
    held_out: Corpus,
    keep: int | None = None,
) -> tuple[PreTrainedTokenizerBase, TrimRecord]:
    """Take out of a model, in place, the rows of tokens that a text does not use.

    What the model answers to a text without trimmed tokens stays, but for the logits of those tokens: where the text
    had them, it is cut into smaller pieces.

    Args:
        model: has a dense token table and a dense head.
        tokenizer: its own; it stays as it is.
        text: where tokens are counted.
        held_out: another text, to say how many more tokens it has afterwards.
        keep: how many tokens stay at most; by default all that the text uses.

    Returns:
        The tokenizer of the trimmed model, and what was done.

    Raises:
        KronpressError: model or tokenizer is of a kind that cannot be trimmed, or `keep` is out of range.
    """
    require_dense_tables(model)
    pieces, rows, before = Pieces.of(tokenizer), vocabulary_size(model), stored_numbers(model)
    named = ids_in_configs(model)
    if beyond := sorted(number for number in pieces.added | named if number >= rows):
        raise KronpressError(
            f"the tokenizer or the config has the special token {beyond[0]}, and {type(model).__name__} knows {rows} "
            f"ids; make room by model.resize_token_embeddings({beyond[-1] + 1})"
        )
    counts = _counts(text, tokenizer, model=model)
    kept = pieces.kept(counts, keep=keep, needed=named)
    trimmed = trimmed_tokenizer(tokenizer, kept)
    lines = _beginning(text).splitlines(keepends=True)
    compared = require_alike(tokenizer, trimmed, kept, lines=lines)
    sample = _beginning(held_out)
    keep_rows(model, kept)
    record = TrimRecord(
        text=text.name,
        tokens=rows,
        used=int((counts > 0).sum()),
        kept=len(kept),
        parameters_before=before,
        parameters=stored_numbers(model),
        compared=compared,
        bytes=len(sample.encode()),
        tokens_before=len(tokenize(sample, tokenizer)),
        tokens_after=len(tokenize(sample, trimmed)),
    )
    return trimmed, record


def _counts(text: Corpus, tokenizer: PreTrainedTokenizerBase, *, model: PreTrainedModel) -> Int[Tensor, " rows"]:
    """Return how often each id that the model knows stands in a text.

    Raises:
        KronpressError: the text has others.
    """
    rows = vocabulary_size(model)
    if text.is_large:
        return stored_tokens(text, tokenizer, model=model).counts(rows)
    ids = tokenize(text, tokenizer)
    require_known(ids, tokenizer, model=model)
    return torch.bincount(ids, minlength=rows)


def _beginning(text: Corpus) -> str:
    """Return the first characters of a text, which are enough to compare tokenizers on."""
    return next(iter(text.pieces()), "")[:_COMPARED]
