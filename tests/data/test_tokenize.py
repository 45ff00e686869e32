from __future__ import annotations

import functools
import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from kronpress.data import Corpus, read_text, tokenize, tokens, windows
from kronpress.errors import KronpressError

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLITTERS = {
    "gpt2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "llama3": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    ),
    "bert": pre_tokenizers.BertPreTokenizer(),
}


@functools.cache
def byte_pairs(splitter: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer with merges of words, spaces and line ends, and a small maximum length to be warned of."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = SPLITTERS[splitter]
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<s>", "<unk>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(["the cat\n\n\n\n    the mat's 12 345\n\n\n    \n\t \t the\n"] * 20, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=16, bos_token="<s>", unk_token="<unk>")


@pytest.mark.parametrize("splitter", SPLITTERS)
@settings(max_examples=60, deadline=None)
@given(pieces=st.lists(st.sampled_from(["\n", " ", "\t", "the", "cat", "'s", "12", ".", "é"]), max_size=60))
def test_chunks_equal_the_whole(splitter: str, pieces: list[str]) -> None:
    tokenizer, text = byte_pairs(splitter), "".join(pieces)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "CHUNK", 3)
        chunked = tokenize(text, tokenizer)
        assert list(tokens.chunks(pieces)) == list(tokens.chunks([text])), "however the text comes"
    assert chunked.tolist() == tokenizer(text, verbose=False)["input_ids"]


def test_long_text_comes_whole() -> None:
    corpus, tokenizer = read_text("bundled:python-reference"), byte_pairs("gpt2")
    ids = tokenize(corpus, tokenizer)
    assert tokenizer.decode(ids.tolist()) == corpus.text
    assert ids.dtype == torch.long
    assert torch.equal(tokenize(corpus, tokenizer, limit=100), ids[:100])


def test_no_warning_of_a_maximum_length(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    caplog.set_level(logging.WARNING, "transformers")
    tokenizer = byte_pairs("gpt2")
    assert len(tokenize("the cat " * 50, tokenizer)) > tokenizer.model_max_length
    assert not caplog.records
    tokenizer("the cat " * 50)
    assert "maximum sequence length" in caplog.text


def test_text_without_any_boundary_is_one_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "CHUNK", 3)
    tokenizer = byte_pairs("gpt2")
    assert tokenizer.decode(tokenize("x" * 50, tokenizer).tolist()) == "x" * 50
    assert tokenize(Corpus("empty", ""), tokenizer).tolist() == []


def test_windows_drop_the_remainder() -> None:
    assert windows(torch.arange(7), size=3).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert windows(torch.arange(6), size=6).shape == (1, 6)


def test_windows_refuse_a_short_text() -> None:
    with pytest.raises(KronpressError, match=r"the text 'x' has only 5 tokens; a window of 6 needs 6: give a longer"):
        windows(torch.arange(5), size=6, name="the text 'x'")
    with pytest.raises(KronpressError, match="window of 0 tokens"):
        windows(torch.arange(5), size=0)
