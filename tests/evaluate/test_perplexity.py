from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F
from transformers import BertForMaskedLM, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from kronpress.errors import KronpressError
from kronpress.evaluate import PROTOCOLS, PerplexityProtocol
from kronpress.evaluate.perplexity import chunked_nats

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


def test_weightings_differ_on_uneven_windows() -> None:
    nats, predicted = torch.tensor([9.0, 2.0]).double(), torch.tensor([3.0, 1.0]).double()
    assert PerplexityProtocol("t", window=4)._mean(nats, predicted) == pytest.approx(11 / 4)
    assert PerplexityProtocol("w", window=4, weighting="window")._mean(nats, predicted) == pytest.approx((3 + 2) / 2)


@pytest.mark.parametrize("name", list(PROTOCOLS))
def test_a_uniform_model_has_the_vocabulary_as_perplexity(
    llama: LlamaForCausalLM, letters: PreTrainedTokenizerFast, name: str
) -> None:
    llama.config.max_position_embeddings = 1024
    torch.nn.init.zeros_(llama.lm_head.weight)
    text = TEXT * 12 + ("<unk>" if PROTOCOLS[name].text_kind == "wikitext-v1" else "")
    result = PROTOCOLS[name].measure(llama, letters, text, name="text", progress=False)
    assert result.perplexity == pytest.approx(llama.config.vocab_size)
    assert result.windows >= 2


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


def test_what_does_not_fit_is_named(
    llama: LlamaForCausalLM, encoder: PreTrainedModel, letters: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(KronpressError, match=r"512 tokens and LlamaForCausalLM sees at most 64; choose .*window=64"):
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
    with pytest.raises(KronpressError, match=r"gives id \d+ and LlamaForCausalLM knows 7 ids; load the tokenizer"):
        small.measure(llama, letters, TEXT, name="text")
    with pytest.raises(KronpressError, match="a window of 1 predicts nothing"):
        PerplexityProtocol("p", window=1)
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
    assert next(iter(PROTOCOLS)) == "tokens-512"
