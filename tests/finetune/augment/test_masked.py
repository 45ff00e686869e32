"""What a masked language model expects in the place of a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from kronpress.errors import KronpressError
from kronpress.finetune.augment.masked import MaskedModel
from kronpress.finetune.augment.words import Word, replaceable
from kronpress.precision import NumberFormat, computing_in
from tests.finetune.words import MORE_WORDS, WORDS, word_tokenizer
from tests.tiny import tiny_bert


def saved(folder: Path, model: Any) -> str:
    model.save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return str(folder)


def by_hand(word: Word, *, count: int) -> tuple[str, ...]:
    """The most probable words, from all logits of the text by itself."""
    tokenizer = word_tokenizer()
    text = word.text[: word.start] + "[MASK]" + word.text[word.end :]
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logits = tiny_bert()(input_ids=ids).logits[0, ids[0].tolist().index(tokenizer.mask_token_id)]
    others = [other for other in (*WORDS, *MORE_WORDS, "out") if other != str(word).lower()]
    return tuple(sorted(others, key=lambda other: -float(logits[tokenizer.convert_tokens_to_ids(other)]))[:count])


def test_they_are_the_most_probable_whole_words_where_the_word_is_masked(tmp_path: Path) -> None:
    masked = MaskedModel(saved(tmp_path, tiny_bert()), torch.device("cpu"))
    texts = ("the moon, the Sea!", "outdoors is the moon", "sun")
    words = [word for text in texts for word in replaceable(text)]
    assert [str(word) for word in words] == ["moon", "Sea", "outdoors", "moon", "sun"]
    with computing_in(NumberFormat("fp32", "for comparison")):
        offers = masked.offers(words, count=3)
    assert offers == [() if str(word) == "outdoors" else by_hand(word, count=3) for word in words]
    assert offers[0] != offers[3], "what stands around it counts"
    assert masked.offers([], count=3) == []


def test_words_beyond_what_the_model_sees_have_none(tmp_path: Path) -> None:
    masked = MaskedModel(saved(tmp_path, tiny_bert(max_position_embeddings=8)), torch.device("cpu"))
    words = replaceable("sun " * 12)
    assert [bool(others) for others in masked.offers(words, count=3)] == [True] * 6 + [False] * 6


def test_other_models_are_refused(tmp_path: Path) -> None:
    source = saved(tmp_path / "core", tiny_bert().bert)
    with pytest.raises(
        KronpressError, match=r"core' is a BertModel and no masked language model; name one under model"
    ):
        MaskedModel(source, torch.device("cpu"))
    tiny_bert().save_pretrained(tmp_path / "bare")
    with pytest.raises(KronpressError, match=r"bare' has no tokenizer\.json with tokens for mask and padding"):
        MaskedModel(str(tmp_path / "bare"), torch.device("cpu"))
