"""Whole heads that go: a plain model with fewer of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from kronpress.checkpoint import save
from kronpress.errors import KronpressError
from kronpress.families import layout
from kronpress.layers import stored_numbers, weight_of
from kronpress.prune import Prune
from kronpress.step import Workbench
from kronpress.validation import parse
from tests.conformance.test_families import build
from tests.tiny import bench, logits, some_ids, tiny_bert, tiny_gpt2, tiny_llama, tiny_tokenizer

FIT = {"tokens": 2048, "window": 64}


def pruned(model: PreTrainedModel, folder: Path, **fields: Any) -> Workbench:
    work = bench(model, folder)
    step = Prune(**{"keep": None, "heads": 0.5, "fit": FIT} | fields)
    step.check(work)
    record = step.run(work)
    assert record.parameters == stored_numbers(work.student)
    return work


@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen3", "gemma2", "gemma3_text"])
def test_the_result_is_a_plain_model_with_fewer_heads(model_type: str, tmp_path: Path) -> None:
    dense = build(model_type)
    student = pruned(dense, tmp_path, keep=0.5).student
    folder = save(student, tmp_path / "model", tokenizer=tiny_tokenizer())
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == model_type and "quantization_config" not in config
    first = layout(dense).attentions[0]
    assert (config["num_attention_heads"], config["num_key_value_heads"]) == (first.heads // 2, first.groups // 2)
    assert config["head_dim"] == first.size
    opened = AutoModelForCausalLM.from_pretrained(folder)
    torch.testing.assert_close(logits(opened), logits(student), atol=1e-5, rtol=1e-5)
    prompt = some_ids()[:1, :8].clamp_min(2)
    texts = [opened.generate(prompt, max_new_tokens=8, do_sample=False, use_cache=cache) for cache in (True, False)]
    assert torch.equal(*texts)


@pytest.mark.usefixtures("in_float32")
@pytest.mark.parametrize("groups", [2, 4])
def test_heads_that_nothing_reads_go_and_nothing_changes(groups: int, tmp_path: Path) -> None:
    model = tiny_llama(num_attention_heads=4, num_key_value_heads=groups)
    for index, attention in enumerate(layout(model).attentions):
        heads = weight_of(model.get_submodule(attention.output)).unflatten(1, (2, -1))
        heads[:, index % 2] = 0.0  # another half in every other block
    work = pruned(model, tmp_path)
    torch.testing.assert_close(logits(work.student), logits(model), atol=1e-3, rtol=1e-3)
    kept = weight_of(work.student.get_submodule("model.layers.1.self_attn.k_proj"))
    dense = weight_of(model.get_submodule("model.layers.1.self_attn.k_proj"))
    assert torch.equal(kept, dense[: len(dense) // 2])


REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    (tiny_gpt2, {}, "computes query, key and value by one matrix"),
    (tiny_bert, {}, "bert models have no size of a head in their configuration"),
    (tiny_llama, {"heads": 0.9}, r"heads: 0\.9 of 2 groups of 2 heads is all of them"),
    (
        lambda: tiny_llama(num_attention_heads=4, num_key_value_heads=4),
        {"heads": 0.75},
        r"llama models cannot have 3 heads: .*choose another share, or value_output",
    ),
    (tiny_llama, {"value_output": 0.5}, "heads removes whole heads, .* make them smaller; give either"),
]


@pytest.mark.parametrize(("make", "fields", "message"), REFUSED, ids=[message for *_, message in REFUSED])
def test_what_no_plain_model_can_be_is_refused_first(make: Any, fields: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(KronpressError, match=message):
        parse(Prune, {"keep": None, "heads": 0.5} | fields, place="s").check(bench(make(), tmp_path))
