"""The nearest words in a token table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from kronpress.errors import KronpressError
from kronpress.finetune.augment.neighbors import Neighbors
from kronpress.finetune.augment.words import Word
from tests.finetune.words import MORE_WORDS, WORDS, word_tokenizer
from tests.tiny import factorized, tiny_bert, tiny_gpt2, tiny_tokenizer


def words(*texts: str) -> list[Word]:
    return [Word(text, 0, len(text)) for text in texts]


def nearest_by_hand(model: Any, word: str, *, count: int) -> tuple[str, ...]:
    tokenizer = word_tokenizer()
    table = model.get_input_embeddings()(torch.arange(len(tokenizer))).detach()
    own = table[tokenizer.convert_tokens_to_ids(word)]
    others = [other for other in (*WORDS, *MORE_WORDS, "out") if other != word]
    cosines = {
        other: F.cosine_similarity(own, table[tokenizer.convert_tokens_to_ids(other)], dim=0) for other in others
    }
    return tuple(sorted(others, key=lambda other: -float(cosines[other]))[:count])


@pytest.mark.parametrize("structured", [False, True])
def test_they_are_those_with_the_largest_cosine_and_whole_words(structured: bool, tmp_path: Path) -> None:
    model: Any = tiny_bert()
    model = factorized(model, tmp_path) if structured else model
    neighbors = Neighbors(model, word_tokenizer())
    assert set(neighbors.vocabulary.words) == {*WORDS, *MORE_WORDS, "out"}
    offers = neighbors.offers(words("moon", "SUN", "outdoors", "unheard", "moon"), count=4)
    moon, sun = (nearest_by_hand(model, word, count=4) for word in ("moon", "sun"))
    assert offers == [moon, sun, (), (), moon]
    assert neighbors.offers([], count=4) == []


def test_words_after_a_space_are_told_from_pieces_in_byte_level_vocabularies() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([" sun", "Ġ", "moon"])
    neighbors = Neighbors(tiny_gpt2(vocab_size=267), tokenizer)
    assert neighbors.vocabulary.words == ("sun", "moon")
    assert neighbors.offers(words("sun", "moon", "tree"), count=3) == [("moon",), ("sun",), ()]


def test_a_vocabulary_with_too_few_words_is_refused() -> None:
    neighbors = Neighbors(tiny_bert(), word_tokenizer())
    neighbors.vocabulary.require(17, what="it")
    with pytest.raises(KronpressError, match=r"18 tokens of it are whole words, too few for candidates=18; name a"):
        neighbors.vocabulary.require(18, what="it")


def test_the_digest_tells_tables_apart() -> None:
    one, same, other = (Neighbors(tiny_bert(seed=seed), word_tokenizer()).digest() for seed in (0, 0, 1))
    assert one == same != other
