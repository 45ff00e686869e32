from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from transformers import BertForMaskedLM, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from kronpress.data import read_text
from kronpress.errors import KronpressError
from kronpress.evaluate import PROTOCOLS, PerplexityProtocol
from kronpress.evaluate.perplexity import chunked_nats
from kronpress.evaluate.text_formats import count_words, detokenize

TEXT = "the cat sat on the mat. a dog barked at it, and so it went on.\n" * 3


def nats_by_hand(model: PreTrainedModel, ids: list[int]) -> torch.Tensor:
    """Return the nats of each token but the first, one window by itself."""
    window = torch.tensor([ids])
    with torch.no_grad():
        logits = model(window).logits
    return F.cross_entropy(logits[0, :-1], window[0, 1:], reduction="none").double()


@pytest.mark.parametrize("weighting", ["token", "window"])
@pytest.mark.parametrize("remainder", ["drop", "keep"])
def test_weighting_and_remainder_as_computed_by_hand(
    llama: LlamaForCausalLM, letters: PreTrainedTokenizerFast, weighting: str, remainder: str
) -> None:
    text = TEXT[:25]  # windows of 10, 10 and 5
    protocol = PerplexityProtocol("p", window=10, weighting=weighting, remainder=remainder)
    result = protocol.measure(llama, letters, text, name="text", progress=False)
    ids = letters(text, verbose=False)["input_ids"]
    each = [nats_by_hand(llama, ids[start : start + 10]) for start in (0, 10, 20)][: 3 if remainder == "keep" else 2]
    nats = torch.cat(each) if weighting == "token" else torch.stack([window.mean() for window in each])
    assert result.perplexity == pytest.approx(math.exp(nats.mean()), rel=1e-5)
    assert (result.tokens, result.windows) == ((22, 3) if remainder == "keep" else (18, 2))
    assert (result.protocol, result.text) == ("p", "text")
    assert result.seconds > 0


@pytest.mark.parametrize("name", ["plain", "kept", "strided", "words", "after the bos token"])
def test_a_large_text_has_the_same_perplexity(
    llama: LlamaForCausalLM, letters: PreTrainedTokenizerFast, large_texts: Path, name: str
) -> None:
    protocol = {
        "plain": PerplexityProtocol("p", window=10),
        "kept": PerplexityProtocol("p", window=10, remainder="keep"),
        "strided": PerplexityProtocol("p", window=10, stride=4, weighting="window"),
        "words": PerplexityProtocol("p", window=10, normalizer="word"),
        "after the bos token": PerplexityProtocol("p", window=10, begin="bos"),
    }[name]
    (large_texts.parent / "text.txt").write_text(TEXT)
    corpus, tokenizer = read_text(str(large_texts.parent / "text.txt")), with_end(letters)
    tokenizer.bos_token = "?"
    for windows in (3, None):
        assert large_texts.exists() is False, "what reads some windows puts nothing into the cache"
        results = [
            protocol.measure(llama, tokenizer, text, name="text", max_windows=windows, progress=False)
            for text in (corpus, TEXT)
        ]
        assert len({dataclasses.replace(result, seconds=0.0) for result in results}) == 1
    with pytest.raises(KronpressError, match=r"takes windows of 5000 tokens and .* sees at most"):
        PerplexityProtocol("p", window=5000).measure(llama, tokenizer, corpus, name="text")


def test_weightings_differ_on_uneven_windows() -> None:
    nats, predicted = torch.tensor([9.0, 2.0]).double(), torch.tensor([3.0, 1.0]).double()
    assert PerplexityProtocol("t", window=4)._mean(nats, predicted) == pytest.approx(11 / 4)
    assert PerplexityProtocol("w", window=4, weighting="window")._mean(nats, predicted) == pytest.approx((3 + 2) / 2)


SAMPLES = {"any": TEXT, "wikitext-raw": TEXT, "wikitext-v1": TEXT + "<unk>", "ptb": TEXT + " <unk> N ", "lambada": TEXT}


@pytest.mark.parametrize("name", list(PROTOCOLS))
def test_a_uniform_model_has_the_vocabulary_as_perplexity(
    llama: LlamaForCausalLM, letters: PreTrainedTokenizerFast, name: str
) -> None:
    protocol = dataclasses.replace(PROTOCOLS[name], window=PROTOCOLS[name].window // 16, stride=None)
    torch.nn.init.zeros_(llama.lm_head.weight)
    llama.config.max_position_embeddings = 128
    text = SAMPLES[protocol.text_kind] * 12
    result = protocol.measure(llama, with_end(letters), text, name="text", progress=False)
    assert result.windows >= 2
    if protocol.normalizer == "token":
        assert (result.words, result.tokens_per_word) == (None, None)
        assert result.perplexity == pytest.approx(llama.config.vocab_size)
    else:
        tokens = len(letters(detokenize(text, protocol.detokenizer), verbose=False)["input_ids"])
        words = count_words(text, protocol.normalizer)
        first = result.windows if protocol.first == "context" else 0
        assert (result.tokens + first, result.words, result.tokens_per_word) == (tokens, words, tokens / words)
        assert result.perplexity == pytest.approx(llama.config.vocab_size ** (tokens / words))


def with_end(letters: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """Return a copy of the tokenizer that knows a token to begin a text with."""
    return PreTrainedTokenizerFast(tokenizer_object=letters._tokenizer, unk_token="?", eos_token="?")


@pytest.mark.parametrize("stride", [1, 3, 7, 8])
@pytest.mark.parametrize("remainder", ["drop", "keep"])
@pytest.mark.parametrize("length", [8, 9, 30, 32])
def test_a_stride_scores_each_token_once_with_the_context_of_its_window(
    llama: LlamaForCausalLM, letters: PreTrainedTokenizerFast, stride: int, remainder: str, length: int
) -> None:
    ids = letters(TEXT[:length], verbose=False)["input_ids"]
    starts = [start for start in range(0, length, stride) if start + 8 <= length or remainder == "keep"]
    nats = []
    for token in range(1, length):  # one by one, each in the first window that holds it and something before it
        holding = [start for start in starts if start < token < start + 8]
        if holding and (stride < 8 or token % 8):
            nats.append(nats_by_hand(llama, ids[holding[0] : token + 1])[-1])
    protocol = PerplexityProtocol("p", window=8, stride=stride, remainder=remainder)
    result = protocol.measure(llama, letters, TEXT[:length], name="text", progress=False)
    assert result.tokens == len(nats)
    assert result.perplexity == pytest.approx(math.exp(torch.stack(nats).mean()), rel=1e-5)


def test_no_stride_is_a_stride_of_the_window(llama: LlamaForCausalLM, letters: PreTrainedTokenizerFast) -> None:
    plain = PerplexityProtocol("p", window=8, remainder="keep")
    same = dataclasses.replace(plain, stride=8)
    results = [each.measure(llama, letters, TEXT, name="t", progress=False) for each in (plain, same)]
    assert results[0].perplexity == results[1].perplexity


def test_overlap_gives_context(llama: LlamaForCausalLM, letters: PreTrainedTokenizerFast) -> None:
    """Hugging Face's guide: 7 windows of 8 that move by 4 over 32 tokens; 7 tokens, then 4 in each."""
    protocol = PerplexityProtocol("p", window=8, stride=4)
    result = protocol.measure(llama, letters, TEXT[:32], name="text", progress=False)
    assert (result.windows, result.tokens) == (7, 31)
    few = protocol.measure(llama, letters, TEXT[:32], name="text", max_windows=3, progress=False)
    same = protocol.measure(llama, letters, TEXT[:16], name="text", progress=False)
    assert (few.windows, few.tokens, few.perplexity) == (3, 15, pytest.approx(same.perplexity, rel=1e-6))


@pytest.mark.parametrize("length", [1, 7, 8, 9, 21])
def test_words_by_hand(llama: LlamaForCausalLM, letters: PreTrainedTokenizerFast, length: int) -> None:
    """Every token counts once, given the begin and what its window of 8 holds; the last window reaches back."""
    text, words = TEXT[:length], len(TEXT[:length].split()) + 1
    ids = [0, *letters(text, verbose=False)["input_ids"]]
    nats = []
    for token in range(1, length + 1):
        end = min(length, (token - 1) // 8 * 8 + 8)
        nats.append(nats_by_hand(llama, ids[max(0, end - 8) : token + 1])[-1])
    protocol = PerplexityProtocol("p", window=8, normalizer="word+eos", first="scored")
    result = protocol.measure(llama, with_end(letters), text, name="text", progress=False)
    assert (result.tokens, result.words) == (length, words)
    assert result.perplexity == pytest.approx(math.exp(torch.stack(nats).sum() / words), rel=1e-5)


def test_pages_do_not_see_each_other(llama: LlamaForCausalLM, letters: PreTrainedTokenizerFast) -> None:
    pages = [" = a = \n \n the cat , it sat . ", " = b c = \n \n = = d = = \n a dog ( old ) \n"]
    protocol = dataclasses.replace(PROTOCOLS["wikitext-word"], window=64)
    together = protocol.measure(llama, with_end(letters), " \n" + "\n".join(pages), name="t", progress=False)
    alone = [protocol.measure(llama, with_end(letters), page, name="t", progress=False) for page in pages]
    assert [each.tokens for each in alone] == [len(" = a =__the cat, it sat. "), len(" = b c =__== d ==_a dog (old)_")]
    assert [each.words for each in alone] == [9 + 2, 14 + 2]  # the ends of a page count, as in lm-eval
    assert (together.tokens, together.words) == (25 + 30, 11 + 16)
    nats = sum(math.log(each.perplexity) * (each.words or 0) for each in alone)
    assert together.perplexity == pytest.approx(math.exp(nats / 27), rel=1e-5)


def test_a_text_begins_with_bos_else_eos(llama: LlamaForCausalLM, letters: PreTrainedTokenizerFast) -> None:
    protocol = PerplexityProtocol("p", window=8, normalizer="word", first="scored")
    with pytest.raises(KronpressError, match=r"'p' begins with the tokenizer's bos or eos token, .* has neither; set"):
        protocol.measure(llama, letters, TEXT, name="text")
    found = []
    for special in ({"eos_token": "b"}, {"bos_token": "b", "eos_token": "?"}, {"bos_token": "?", "eos_token": "b"}):
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=letters._tokenizer, unk_token="?", **special)
        found.append(protocol.measure(llama, tokenizer, "cat", name="text", progress=False).perplexity)
    assert found[0] == found[1] != found[2]


def test_a_ratio_of_the_whole_text_where_windows_are_few(
    llama: LlamaForCausalLM, letters: PreTrainedTokenizerFast
) -> None:
    protocol = PerplexityProtocol("p", window=8, normalizer="word+eos", first="scored")
    few = protocol.measure(llama, with_end(letters), TEXT, name="t", max_windows=2, progress=False)
    per_token = dataclasses.replace(protocol, normalizer="token").measure(
        llama, with_end(letters), TEXT, name="t", max_windows=2, progress=False
    )
    assert (few.windows, few.tokens, few.words) == (2, 16, 3 * 17)
    assert few.perplexity == pytest.approx(per_token.perplexity ** (len(TEXT) / 51))


def test_batches_change_nothing(llama: LlamaForCausalLM, letters: PreTrainedTokenizerFast) -> None:
    protocol = PerplexityProtocol("p", window=8)
    whole = protocol.measure(llama, letters, TEXT, name="text", progress=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kronpress.evaluate.perplexity._TOKENS_PER_BATCH", 24)
        in_parts = protocol.measure(llama, letters, TEXT, name="text", progress=False)
    assert in_parts.perplexity == pytest.approx(whole.perplexity, rel=1e-5)
    assert in_parts.tokens == whole.tokens


def test_first_windows_only(llama: LlamaForCausalLM, letters: PreTrainedTokenizerFast) -> None:
    protocol = PerplexityProtocol("p", window=8, remainder="keep")
    few = protocol.measure(llama, letters, TEXT, name="text", max_windows=2, progress=False)
    same = protocol.measure(llama, letters, TEXT[:16], name="text", progress=False)
    assert few.windows == 2
    assert few.perplexity == pytest.approx(same.perplexity)


def test_a_text_shorter_than_the_window_is_kept_or_refused(
    llama: LlamaForCausalLM, letters: PreTrainedTokenizerFast
) -> None:
    keep = PerplexityProtocol("p", window=64, remainder="keep")
    assert keep.measure(llama, letters, "abcd", name="text", progress=False).tokens == 3
    with pytest.raises(KronpressError, match=r"the text 'short' has only 4 tokens; a window of 64 needs 64: give"):
        PerplexityProtocol("p", window=64).measure(llama, letters, "abcd", name="short", progress=False)
    with pytest.raises(KronpressError, match="only 1 tokens"):
        keep.measure(llama, letters, "a", name="short", progress=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_chunks_equal_cross_entropy(dtype: torch.dtype) -> None:
    logits, targets = torch.randn(600, 50).to(dtype), torch.randint(50, (600,))
    assert torch.equal(
        chunked_nats(logits, targets=targets), F.cross_entropy(logits.float(), targets, reduction="none")
    )


def test_rows_are_joined_as_the_data_set_does(llama: LlamaForCausalLM, letters: PreTrainedTokenizerFast) -> None:
    joined = PerplexityProtocol("j", window=4, rows="joined").measure(
        llama, letters, " a\n \nb\n", name="t", progress=False
    )
    by_hand = " a\n" + "\n\n" + "" + "\n\n" + "b\n"  # 9 characters: two windows of 4
    plain = PerplexityProtocol("p", window=4).measure(llama, letters, by_hand, name="t", progress=False)
    assert (joined.windows, joined.perplexity) == (2, plain.perplexity)


def test_kinds_of_text_are_not_mixed(llama: LlamaForCausalLM, letters: PreTrainedTokenizerFast) -> None:
    llama.config.max_position_embeddings = 1024
    for name in ("wikitext-v1", "krony-pt"):
        with pytest.raises(
            KronpressError, match=rf"'{name}' is for WikiText v1, and the text 'raw\.txt' has no '<unk>'"
        ):
            PROTOCOLS[name].measure(llama, letters, TEXT, name="raw.txt")
    with pytest.raises(KronpressError, match=r"raw WikiText, and the text 'v1\.txt' has '<unk>'"):
        PROTOCOLS["wikitext-raw"].measure(llama, letters, "a <unk>", name="v1.txt")
    with pytest.raises(KronpressError, match=r"Treebank .*, and the text 'v1' has upper case in it \('A'\); .* choose"):
        PROTOCOLS["ptb"].measure(llama, letters, "<unk> A", name="v1")
    with pytest.raises(KronpressError, match=r"WikiText v1, and the text 'ptb' is all lower case with N .* or ptb or"):
        PROTOCOLS["krony-pt"].measure(llama, letters, "the <unk> 's N shares rose \n to $ N", name="ptb")


def test_windows_of_any_size_are_protocols(llama: LlamaForCausalLM, letters: PreTrainedTokenizerFast) -> None:
    assert PROTOCOLS["tokens-77"] == PerplexityProtocol("tokens-77", window=77)
    assert PROTOCOLS["tokens-2"].window == 2
    result = PROTOCOLS["tokens-60"].measure(llama, letters, TEXT, name="text", progress=False)
    assert (result.protocol, result.windows, result.tokens) == ("tokens-60", 3, 3 * 59)
    for name in ("tokens-0", "tokens-1"):
        with pytest.raises(KronpressError, match=f"protocol '{name}': a window of .* use 2 or more"):
            PROTOCOLS[name]
    for name in ("tokens-abc", "tokens-", "tokens--3", "tokens-064", "tokens-٣"):
        with pytest.raises(KronpressError, match=r"unknown .* did you mean 'tokens-.* or tokens-N for"):
            PROTOCOLS[name]
    with pytest.raises(KronpressError, match="unknown perplexity protocol"):
        PROTOCOLS["tokens-" + "9" * 5000]


def test_the_protocol_of_krony_pt_reads_lambada_too(
    llama: LlamaForCausalLM, letters: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    passages = ["the cat sat on the mat", "a dog barked at it", "and so it went on"]
    (tmp_path / "lambada.jsonl").write_text("".join(f'{{"text": "{passage}"}}\n' for passage in passages))
    (tmp_path / "lambada.txt").write_text("".join(f"{passage}\n" for passage in passages))
    protocol = dataclasses.replace(PROTOCOLS["krony-pt-lambada"], window=16)
    ids = letters("\n\n".join(passages), verbose=False)["input_ids"]
    means = [nats_by_hand(llama, ids[start : start + 16]).mean() for start in range(0, len(ids), 16)]
    assert len(ids) % 16 > 1  # the short last window weighs as much as the others
    for name in ("lambada.jsonl", "lambada.txt"):
        text = read_text(str(tmp_path / name)).text
        result = protocol.measure(llama, letters, text, name=name, progress=False)
        assert result.perplexity == pytest.approx(math.exp(torch.stack(means).mean()), rel=1e-5)
        assert (result.tokens, result.windows) == (len(ids) - len(means), len(means))
    llama.config.max_position_embeddings = 1024
    with pytest.raises(
        KronpressError, match=r"passages of LAMBADA, and the text 'v1' has '<unk>' .* choose .*krony-pt or"
    ):
        PROTOCOLS["krony-pt-lambada"].measure(llama, letters, "a <unk>", name="v1")
    with pytest.raises(KronpressError, match="passages of LAMBADA, and the text 'raw' has headings of WikiText"):
        PROTOCOLS["krony-pt-lambada"].measure(llama, letters, " = Lobster = \n", name="raw")
    with pytest.raises(KronpressError, match=r"choose .*krony-pt-lambada"):
        PROTOCOLS["krony-pt"].measure(llama, letters, TEXT, name="lambada")


def test_what_does_not_fit_is_named(
    llama: LlamaForCausalLM, encoder: PreTrainedModel, letters: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(KronpressError, match=r"512 tokens and LlamaForCausalLM sees at most 64; choose tokens-64"):
        PROTOCOLS["tokens-512"].measure(llama, letters, TEXT, name="text")
    llama.config.max_position_embeddings = 512
    with pytest.raises(KronpressError, match=r"windows of 1024 tokens .* at most 512; choose tokens-512$"):
        PROTOCOLS["tokens-1024"].measure(llama, letters, TEXT, name="text")
    small = PerplexityProtocol("p", window=8)
    for model in (encoder, BertForMaskedLM(encoder.config), llama.model):
        with pytest.raises(KronpressError, match=f"perplexity needs a causal .* {type(model).__name__} is none; load"):
            small.measure(model, letters, TEXT, name="text")
    with pytest.raises(KronpressError, match="max_windows=0"):
        small.measure(llama, letters, TEXT, name="text", max_windows=0)
    llama.config.vocab_size = 7
    with pytest.raises(KronpressError, match=r"gives id \d+ \('.*'\) and LlamaForCausalLM knows 7 ids; load"):
        small.measure(llama, letters, TEXT, name="text")
    with pytest.raises(KronpressError, match="a window of 1 predicts nothing"):
        PerplexityProtocol("p", window=1)
    for stride in (0, 9):
        with pytest.raises(KronpressError, match=f"a stride of {stride} skips or repeats .* use 1 to 8"):
            PerplexityProtocol("p", window=8, stride=stride)
    with pytest.raises(KronpressError, match="did you mean 'krony-pt'"):
        PROTOCOLS["krony"]


@pytest.mark.parametrize("value", [1e6, math.inf, math.nan])
def test_overflow_is_infinite(llama: LlamaForCausalLM, letters: PreTrainedTokenizerFast, value: float) -> None:
    torch.nn.init.constant_(llama.model.norm.weight, value)
    result = PerplexityProtocol("p", window=8).measure(llama, letters, TEXT, name="text", progress=False)
    assert result.perplexity == math.inf


def test_modes_are_restored(llama: LlamaForCausalLM, letters: PreTrainedTokenizerFast) -> None:
    llama.train()
    llama.model.norm.eval()
    PerplexityProtocol("p", window=8).measure(llama, letters, TEXT, name="text", progress=False)
    assert llama.training and llama.lm_head.training and not llama.model.norm.training


def test_protocols_read_like_a_recipe() -> None:
    assert eval(repr(PROTOCOLS["krony-pt"])) == PROTOCOLS["krony-pt"]
    assert all(PROTOCOLS[name].name == name for name in PROTOCOLS)
    assert all(eval(repr(protocol)) == protocol for _, protocol in PROTOCOLS.items())
    assert PROTOCOLS["krony-pt"].summary == (
        "WikiText v1; windows of 1024; per token, mean of window means; as Krony-PT's and TQCompressor's tables"
    )
    assert next(iter(PROTOCOLS)) == "tokens-512"
