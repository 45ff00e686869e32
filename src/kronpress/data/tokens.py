"""From text to token ids, and from token ids to windows."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from itertools import islice

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kronpress.data.corpus import Corpus
from kronpress.errors import KronpressError
from kronpress.families import family_of, vocabulary_size

_BOUNDARY = re.compile(r"(?<=\S\n)(?=\S)|(?= \S)")

CHUNK = 1 << 18
"""Characters of a chunk: about 65,000 tokens, a few tens of megabytes inside a tokenizer."""

AT_ONCE = 8
"""Chunks that a tokenizer gets at once and shares among the cores."""


def tokenize(
    text: Corpus | str, tokenizer: PreTrainedTokenizerBase, *, limit: int | None = None
) -> Int[Tensor, " tokens"]:
    """Return the ids of `text` without special tokens, or of its first `limit` tokens.

    The text goes through the tokenizer in chunks, see `chunks`.
    """
    pieces: list[Int[Tensor, " tokens"]] = []
    found = 0
    whole = chunks(text.pieces() if isinstance(text, Corpus) else [text])
    while (limit is None or found < limit) and (some := list(islice(whole, 1 if limit is not None else AT_ONCE))):
        pieces += [torch.tensor(ids, dtype=torch.long) for ids in ids_of(some, tokenizer)]
        found += len(pieces[-1])
    return torch.cat([torch.empty(0, dtype=torch.long), *pieces])[:limit]


def chunks(pieces: Iterable[str]) -> Iterator[str]:
    """Yield a text that comes in pieces as chunks of about 262,000 characters, for each of which memory is needed.

    A chunk ends where a line ends between two visible characters, or before a single space that a word follows:
    there byte-level (GPT-2, Llama 3) and word-piece (BERT) tokenizers cut anyway, and the ids equal those of the
    whole text. A tokenizer that marks the start of its input (SentencePiece's dummy prefix) may differ from the whole
    text by a token per chunk.
    """
    held = ""
    for piece in pieces:
        held, start = held + piece, 0
        while boundary := _BOUNDARY.search(held, start + CHUNK):
            yield held[start : boundary.start()]
            start = boundary.start()
        held = held[start:]
    if held:
        yield held


def chunking() -> tuple[int, str]:
    """Return what the ids of a text depend on beside the tokenizer."""
    return CHUNK, _BOUNDARY.pattern


def ids_of(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Return the ids of each of several texts, without special tokens."""
    plain = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
    if not tokenizer.is_fast or len(texts) == 1:
        return list(tokenizer(list(texts), **plain)["input_ids"])
    tokenizer("", **plain)  # which takes away the truncation and padding of a call before
    encodings = tokenizer.backend_tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    return [encoding.ids for encoding in encodings]  # transformers would make lists of all that is in them


def count_tokens(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return how many tokens each of several short texts has, without special ones."""
    return [len(ids) for ids in ids_of(texts, tokenizer)]


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return what tells a tokenizer from others that give other ids for some text, wherever it lies."""
    if tokenizer.is_fast:
        content = json.loads(tokenizer.backend_tokenizer.to_str())
        content.update(truncation=None, padding=None)  # what a call before has left
        package = "tokenizers"
    else:
        content, package = [sorted(tokenizer.get_vocab().items()), tokenizer.init_kwargs], "transformers"
    facts = [type(tokenizer).__name__, tokenizer.split_special_tokens, content, package, version(package)]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def require_known(ids: Int[Tensor, "*any"], tokenizer: PreTrainedTokenizerBase, *, model: PreTrainedModel) -> None:
    """Check that the model has a row for each of `ids`.

    A tokenizer may know more tokens than the model, as long as no text has them in it.

    Raises:
        KronpressError: it has not.
    """
    highest, rows = int(ids.max()) if ids.numel() else 0, vocabulary_size(model)
    if highest >= rows:
        raise KronpressError(
            f"the tokenizer gives id {highest} ({tokenizer.convert_ids_to_tokens(highest)!r:.40}) and "
            f"{type(model).__name__} knows {rows} ids; load the tokenizer that was saved beside the model, or, where "
            f"tokens were added to it, make room by model.resize_token_embeddings({highest + 1}) or remove them"
        )


def knows_more(tokenizer: PreTrainedTokenizerBase, *, model: PreTrainedModel) -> bool:
    """Say whether the tokenizer has ids that the model does not know, so that a text may have them in it."""
    return max(tokenizer.get_vocab().values(), default=0) >= vocabulary_size(model)


def beginning(tokenizer: PreTrainedTokenizerBase, *, model: PreTrainedModel) -> int | None:
    """Return the id that every window must begin with where a model of its family needs that, else None.

    Raises:
        KronpressError: the tokenizer has no such token.
    """
    return None if family_of(model).begins_with is None else bos_of(tokenizer, reader=type(model).__name__)


def bos_of(tokenizer: PreTrainedTokenizerBase, *, reader: str) -> int:
    """Return the id of the token that stands for the beginning of a text, with which what `reader` reads begins.

    Raises:
        KronpressError: the tokenizer has no such token.
    """
    if tokenizer.bos_token_id is None:
        raise KronpressError(
            f"{reader} reads every window after the bos token, and {type(tokenizer).__name__} has none; "
            "set tokenizer.bos_token, or load the tokenizer that was saved beside the model"
        )
    return int(tokenizer.bos_token_id)


def windows(
    ids: Int[Tensor, " tokens"], *, size: int, name: str = "the text", first: int | None = None
) -> Int[Tensor, "windows size"]:
    """Cut `ids` into windows of `size` tokens that do not overlap; a shorter rest is dropped.

    Each begins with the token `first` where that is given, and has one token of the text fewer then.

    >>> windows(torch.arange(7), size=3).tolist()
    [[0, 1, 2], [3, 4, 5]]
    >>> windows(torch.arange(7), size=3, first=9).tolist()
    [[9, 0, 1], [9, 2, 3], [9, 4, 5]]

    Raises:
        KronpressError: where there is not one whole window; `name` is what the message calls the text.
    """
    count = count_of_windows(len(ids), size=size, name=name, first=first)
    text = size if first is None else size - 1
    cut = ids[: count * text].view(count, text)
    return cut if first is None else torch.cat([cut.new_full((count, 1), first), cut], dim=1)


def spread(found: Int[Tensor, "windows size"], *, count: int) -> Int[Tensor, "some size"]:
    """Return `count` windows that stand evenly apart, the first among them; all where there are fewer.

    >>> spread(torch.arange(14).view(7, 2), count=3)[:, 0].tolist()
    [0, 4, 8]
    """
    count = min(count, len(found))
    return found[torch.arange(count) * len(found) // count]


def count_of_windows(tokens: int, *, size: int, name: str, first: int | None) -> int:
    """Return how many windows there are in so many tokens, see `windows`.

    Raises:
        KronpressError: as `windows`.
    """
    special = 0 if first is None else 1
    if size < 1 + special:
        raise KronpressError(f"a window of {size} tokens holds nothing; choose a size of {1 + special} or more")
    text = size - special
    if tokens < text:
        raise KronpressError(
            f"{name} has only {tokens} tokens; a window of {size} needs {text}: "
            f"give a longer text or a window of at most {tokens + special}"
        )
    return tokens // text
