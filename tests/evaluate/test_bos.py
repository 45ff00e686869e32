"""Models that must read the token of the beginning of a text first, and those that need not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from kronpress.data import beginning
from kronpress.errors import KronpressError
from kronpress.evaluate import LAMBADA, PROTOCOLS, PerplexityProtocol, generate_samples
from kronpress.evaluate.lambada import Passage
from tests.tiny import DIM, TEXT, VOCABULARY, WIDTH, bench, tiny_llama, tiny_tokenizer

BOS = 261


def tiny_gemma() -> PreTrainedModel:
    sizes = {"vocab_size": VOCABULARY, "hidden_size": DIM, "intermediate_size": WIDTH, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "sliding_window": 4}
    config = AutoConfig.for_model("gemma3_text", **sizes, **heads, bos_token_id=BOS, eos_token_id=6)
    return AutoModelForCausalLM.from_config(config).eval()


def read_by(model: PreTrainedModel, work: Callable[[], object]) -> list[list[int]]:
    """What a model reads while `work` is done."""
    found: list[list[int]] = []
    hook = model.get_input_embeddings().register_forward_pre_hook(lambda _, args: found.extend(args[0].tolist()))
    work()
    hook.remove()
    return found


def test_the_tokenizer_of_these_tests_has_the_token() -> None:
    assert tiny_tokenizer().bos_token_id == BOS


@pytest.mark.parametrize("build", [tiny_gemma, tiny_llama])
def test_each_window_of_a_protocol_begins_with_it_where_the_model_needs_it(
    build: Callable[[], PreTrainedModel],
) -> None:
    model, tokenizer = build(), tiny_tokenizer()
    ids, needed = tokenizer(TEXT, add_special_tokens=False)["input_ids"], build is tiny_gemma
    result = PROTOCOLS["tokens-16"].measure(model, tokenizer, TEXT, name="text", max_windows=5)
    assert result.protocol == ("tokens-16+bos" if needed else "tokens-16")
    protocol = PROTOCOLS["tokens-16+bos"]
    read = read_by(model, lambda: protocol.measure(model, tokenizer, TEXT, name="text", max_windows=5))
    assert read == [[BOS, *ids[15 * start : 15 * start + 15]] for start in range(5)]
    named = protocol.measure(model, tokenizer, TEXT, name="text", max_windows=5)
    assert named.tokens == 5 * 14  # as in other windows the first token of the text is context only
    assert (named.perplexity == result.perplexity) is needed


def test_where_the_first_token_is_scored_too_no_window_begins_with_it_twice() -> None:
    model, tokenizer = tiny_llama(), tiny_tokenizer()
    protocol = PerplexityProtocol("scored", window=16, first="scored").after_bos()
    results = []
    read = read_by(model, lambda: results.append(protocol.measure(model, tokenizer, TEXT[:100], name="text")))
    assert all(row[0] == BOS and BOS not in row[1:] and len(row) <= 16 for row in read)
    assert results[0].tokens == 100
    assert results[0].protocol == "scored+bos"


def test_a_window_needs_room_for_it() -> None:
    with pytest.raises(KronpressError, match=r"'tokens-2\+bos': a window of 2 predicts nothing; use 3 or more"):
        PROTOCOLS["tokens-2+bos"].measure(tiny_llama(), tiny_tokenizer(), TEXT, name="text")


def test_a_tokenizer_without_it_is_refused() -> None:
    model, tokenizer = tiny_gemma(), tiny_tokenizer()
    tokenizer.bos_token = None
    with pytest.raises(KronpressError, match=r"Gemma3ForCausalLM reads every window after the bos token, and .* none"):
        beginning(tokenizer, model=model)
    assert beginning(tokenizer, model=tiny_llama()) is None


def test_calibration_and_training_read_it_and_counts_of_tokens_do_not(tmp_path: Path) -> None:
    gemma, llama = bench(tiny_gemma(), tmp_path), bench(tiny_llama(), tmp_path)
    ids = llama.training_windows(size=1).flatten()
    for windows in (gemma.training_windows(size=8), gemma.held_out_windows(size=8, count=4)):
        assert windows.shape[1] == 8
        assert (windows[:, 0] == BOS).all()
        assert torch.equal(windows[:, 1:].flatten(), ids[: 7 * len(windows)])
    assert gemma.held_out_windows(size=8, count=4).shape == (4, 8)
    assert torch.equal(gemma.training_ids(), ids)
    assert (gemma.training_windows(size=8, tokens=64)[:, 0] == BOS).all()
    assert torch.equal(llama.training_windows(size=8)[:8], ids[:64].view(8, 8))


def test_prompts_and_passages_begin_with_it() -> None:
    model, tokenizer = tiny_gemma(), tiny_tokenizer()
    for work in (
        lambda: generate_samples(model, tokenizer, ["a word"], max_new_tokens=2),
        lambda: LAMBADA.measure(model, tokenizer, [Passage("a long", "a long word", "here")], name="passages"),
    ):
        first = read_by(model, work)[0]
        assert first[0] == BOS
        assert BOS not in first[1:]
