from __future__ import annotations

import pytest
import torch
from transformers import GPT2LMHeadModel, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from kronpress.errors import KronpressError
from kronpress.evaluate import generate_samples


def greedy_by_hand(model: PreTrainedModel, ids: list[int], count: int) -> list[int]:
    """Return the likeliest continuation, without a cache."""
    ids = list(ids)
    for _ in range(count):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[-count:]


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_samples_are_greedy_and_without_the_prompt(
    name: str, letters: PreTrainedTokenizerFast, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(name)
    prompts = ["the cat", "a"]
    by_hand = [greedy_by_hand(model, letters(prompt)["input_ids"], 6) for prompt in prompts]
    model.train()
    assert letters.pad_token is None
    assert generate_samples(model, letters, prompts, max_new_tokens=6) == [
        letters.decode(ids, skip_special_tokens=True) for ids in by_hand
    ]
    assert model.training


def test_sampling_settings_of_the_checkpoint_do_not_matter(
    gpt2: GPT2LMHeadModel, letters: PreTrainedTokenizerFast
) -> None:
    plain = generate_samples(gpt2, letters, ["the cat"], max_new_tokens=6)
    gpt2.generation_config.update(do_sample=True, temperature=5.0, top_k=3, top_p=0.5, max_length=7)
    assert generate_samples(gpt2, letters, ["the cat"], max_new_tokens=6) == plain


def test_the_end_token_ends_a_sample(llama: LlamaForCausalLM, letters: PreTrainedTokenizerFast) -> None:
    first = greedy_by_hand(llama, letters("a")["input_ids"], 1)
    llama.generation_config.eos_token_id = first
    assert generate_samples(llama, letters, ["a"]) == [letters.decode(first, skip_special_tokens=True)]


def test_a_long_prompt_is_continued_as_far_as_there_is_room(
    llama: LlamaForCausalLM, letters: PreTrainedTokenizerFast
) -> None:
    assert generate_samples(llama, letters, ["a" * 50]) == generate_samples(
        llama, letters, ["a" * 50], max_new_tokens=14
    )
    with pytest.raises(KronpressError, match="has 64 tokens, and 1 more outgrow the 64 positions"):
        generate_samples(llama, letters, ["a" * 64])


def test_what_can_not_be_continued_is_named(
    llama: LlamaForCausalLM, encoder: PreTrainedModel, letters: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(KronpressError, match=r"writing samples needs a causal language model .* BertModel is none"):
        generate_samples(encoder, letters, ["a"])
    with pytest.raises(KronpressError, match="the prompt '' has no tokens"):
        generate_samples(llama, letters, ["a", ""])
    with pytest.raises(KronpressError, match="has 30 tokens, and 40 more outgrow the 64 positions of LlamaForCausalLM"):
        generate_samples(llama, letters, ["a" * 30], max_new_tokens=40)
