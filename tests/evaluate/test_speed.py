from __future__ import annotations

import copy

import pytest
import torch
from transformers import GPT2LMHeadModel, LlamaForCausalLM, PreTrainedModel, T5Config, T5ForConditionalGeneration

from kronpress.errors import KronpressError
from kronpress.evaluate import compare_speed, speed


def test_a_model_is_as_fast_as_itself(llama: LlamaForCausalLM) -> None:
    found = compare_speed(llama, copy.deepcopy(llama), prompt_tokens=32, new_tokens=8, repeats=7)
    assert [row.phase for row in found.rows] == ["prefill", "decode"]
    for row in found.rows:
        assert row.ratio_min <= row.ratio <= row.ratio_max
        assert row.ratio_min < 1.5 and row.ratio_max > 0.67
        assert row.dense > 0 and row.student > 0
    assert (found.threads, found.device) == (torch.get_num_threads(), "cpu")
    assert (found.dense_dtype, found.student_dtype) == ("float32", "float32")
    assert (found.prompt_tokens, found.new_tokens, found.repeats) == (32, 8, 7)


def test_ratios_are_those_of_neighbors(monkeypatch: pytest.MonkeyPatch, llama: LlamaForCausalLM) -> None:
    student = copy.deepcopy(llama)
    rates = {id(llama): iter([0.0, 10.0, 20.0, 40.0]), id(student): iter([0.0, 20.0, 60.0, 40.0])}
    order = []

    def measure(model: PreTrainedModel, *_: object, **__: object) -> dict[str, float]:
        order.append("dense" if model is llama else "student")
        return {"prefill": next(rates[id(model)])}

    monkeypatch.setattr(speed, "_rates", measure)
    (row,) = compare_speed(llama, student, prompt_tokens=8, new_tokens=2, repeats=3).rows
    assert (row.dense, row.student) == (20, 40)
    assert (row.ratio, row.ratio_min, row.ratio_max) == (2, 1, 3)
    assert order == ["dense", "student", "dense", "student", "student", "dense", "dense", "student"]


def test_decoding_uses_the_cache(gpt2: GPT2LMHeadModel) -> None:
    lengths: list[int] = []
    gpt2.register_forward_pre_hook(lambda _, __, inputs: lengths.append(inputs["input_ids"].shape[1]), with_kwargs=True)
    gpt2.train()
    compare_speed(gpt2, gpt2, prompt_tokens=8, new_tokens=3, repeats=1)
    assert lengths == [8, 1, 1, 1] * 4
    assert gpt2.training


def test_encoders_have_prefill_only(encoder: PreTrainedModel) -> None:
    found = compare_speed(encoder, encoder, prompt_tokens=64, repeats=1)
    assert [row.phase for row in found.rows] == ["prefill"]
    assert found.new_tokens == 0


def test_what_can_not_be_timed_is_named(llama: LlamaForCausalLM) -> None:
    with pytest.raises(KronpressError, match="288 tokens outgrow the 64 positions of LlamaForCausalLM; use fewer"):
        compare_speed(llama, llama, prompt_tokens=256, new_tokens=32)
    with pytest.raises(KronpressError, match="repeats=0 leaves nothing to time"):
        compare_speed(llama, llama, repeats=0)
    both = T5ForConditionalGeneration(T5Config(d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, vocab_size=16))
    with pytest.raises(KronpressError, match="T5ForConditionalGeneration is both"):
        compare_speed(llama, both, prompt_tokens=8)
