"""Tokenizers of every kind read a text as before where all of its tokens stay, and any other in smaller pieces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from kronpress.data import tokenize
from kronpress.errors import KronpressError
from kronpress.trim import Pieces, trimmed_tokenizer
from kronpress.trim.tokenizer import require_alike

SPECIAL = ["[UNK]", "[CLS]", "[SEP]", "[PAD]"]
WORDS = "the walker walked the long walk home and the walls of the town were tall as trees in a tale told at noon "
PROSE = "\n".join(WORDS * 2 + f"{number} walls talk of walking, {number * 7} tall walkers" for number in range(40))
OTHER = "Ünder the tallest wall, näher: 12345 wolves howl — twice? 東京\n"


def byte_level() -> tuple[Tokenizer, Any]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return tokenizer, trainers.BpeTrainer(
        vocab_size=420, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )


def with_bytes() -> tuple[Tokenizer, Any]:
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    byte_pieces = [f"<0x{number:02X}>" for number in range(256)]
    return tokenizer, trainers.BpeTrainer(
        vocab_size=420, special_tokens=[*SPECIAL, *byte_pieces], show_progress=False, max_token_length=8
    )


def word_pieces() -> tuple[Tokenizer, Any]:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    return tokenizer, trainers.WordPieceTrainer(vocab_size=160, special_tokens=SPECIAL, show_progress=False)


def unigrams() -> tuple[Tokenizer, Any]:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return tokenizer, trainers.UnigramTrainer(
        vocab_size=120, special_tokens=SPECIAL, unk_token="[UNK]", show_progress=False
    )


def words() -> tuple[Tokenizer, Any]:
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer, trainers.WordLevelTrainer(special_tokens=SPECIAL, show_progress=False)


Kind = Callable[[], tuple[Tokenizer, Any]]
KINDS = [byte_level, with_bytes, word_pieces, unigrams, words]


def trained(kind: Kind, marks: Any = None) -> PreTrainedTokenizerFast:
    tokenizer, trainer = kind()
    tokenizer.train_from_iterator([PROSE, OTHER], trainer)
    ends = [(name, tokenizer.token_to_id(name)) for name in ("[SEP]", "[CLS]")]
    tokenizer.post_processor = marks(*ends) if marks else None
    named = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)


def counts(text: str, tokenizer: PreTrainedTokenizerFast) -> torch.Tensor:
    return torch.bincount(tokenize(text, tokenizer), minlength=len(tokenizer))


def some_of_prose() -> str:
    return PROSE[: len(PROSE) // 8]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("more", [None, 15])
def test_a_text_whose_tokens_stay_is_cut_as_before(kind: Kind, more: int | None) -> None:
    tokenizer = trained(kind)
    pieces = Pieces.of(tokenizer)
    keep = None if more is None else len(pieces.always) + more
    kept = pieces.kept(counts(some_of_prose(), tokenizer), keep=keep, needed=frozenset())
    trimmed = trimmed_tokenizer(tokenizer, kept)
    assert len(trimmed) == len(kept) < len(tokenizer)
    assert keep is None or len(kept) == keep
    lines = some_of_prose().splitlines()
    alike = require_alike(tokenizer, trimmed, kept, lines=[word for line in lines for word in line.split(" ")])
    assert alike > 20
    if more is None:
        assert require_alike(tokenizer, trimmed, kept, lines=lines) == len(lines)
    assert [trimmed.convert_ids_to_tokens(place) for place in range(len(kept))] == [
        tokenizer.convert_ids_to_tokens(number) for number in kept
    ]


@pytest.mark.parametrize("kind", [byte_level, with_bytes])
def test_where_bytes_stay_any_text_is_read(kind: Kind) -> None:
    tokenizer = trained(kind)
    kept = Pieces.of(tokenizer).kept(counts("the walk ", tokenizer), keep=None, needed=frozenset())
    trimmed = trimmed_tokenizer(tokenizer, kept)
    text = OTHER + PROSE[:200]
    ids = tokenize(text, trimmed)
    assert trimmed.decode(ids, skip_special_tokens=False) == text
    assert len(ids) > len(tokenize(text, tokenizer))


@given(kept_words=st.sets(st.sampled_from(WORDS.split()), min_size=1))
@settings(deadline=None, max_examples=20)
def test_any_words_may_stay(kept_words: set[str]) -> None:
    tokenizer, text = BYTES, " ".join(sorted(kept_words)) + " "
    kept = Pieces.of(tokenizer).kept(counts(text, tokenizer), keep=None, needed=frozenset())
    assert require_alike(tokenizer, trimmed_tokenizer(tokenizer, kept), kept, lines=[text, *PROSE.split("\n")]) >= 1


BYTES = trained(byte_level)


def test_a_piece_stands_on_those_that_it_is_joined_from() -> None:
    vocabulary = {piece: number for number, piece in enumerate(["a", "b", "c", "bc", "ab", "abc", "abcabc"])}
    merges = [("b", "c"), ("a", "b"), ("a", "bc"), ("ab", "c"), ("abc", "abc")]
    pieces = Pieces.of(PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(vocabulary, merges))))
    assert pieces.behind(vocabulary["abcabc"]) == {vocabulary[p] for p in ("a", "b", "c", "bc", "abc", "abcabc")}
    assert pieces.behind(vocabulary["ab"]) == {vocabulary[p] for p in ("a", "b", "ab")}


def template(separator: tuple[str, int], first: tuple[str, int]) -> Any:
    return processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[separator, first])


@pytest.mark.parametrize(
    "marks", [template, processors.BertProcessing, lambda *ends: processors.Sequence([template(*ends)])]
)
def test_marks_have_their_new_ids(marks: Any) -> None:
    tokenizer = trained(words, marks)
    ids = [tokenizer.convert_tokens_to_ids(piece) for piece in (*SPECIAL, "walls")]
    moved = trimmed_tokenizer(tokenizer, sorted(ids))
    text = "walls"
    assert moved.convert_ids_to_tokens(moved(text)["input_ids"]) == ["[CLS]", text, "[SEP]"]
    assert moved(text, padding="max_length", max_length=5)["input_ids"][-1] == moved.pad_token_id


@pytest.mark.parametrize("keep", [5, 100_000])
def test_a_number_out_of_range_is_refused(keep: int) -> None:
    with pytest.raises(KronpressError, match=rf"keep is {keep:,}; give a number from 260"):
        Pieces.of(BYTES).kept(counts(WORDS, BYTES), keep=keep, needed=frozenset())


def test_another_cut_is_noticed() -> None:
    tokenizer = trained(byte_level)
    kept = Pieces.of(tokenizer).kept(counts(PROSE, tokenizer), keep=None, needed=frozenset())
    with pytest.raises(KronpressError, match="in another way than before"):
        require_alike(tokenizer, tokenizer, [0, *kept[2:]], lines=PROSE.splitlines())
