from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import (
    DistilBertConfig,
    DistilBertForMaskedLM,
    PreTrainedModel,
    RobertaConfig,
    RobertaForMaskedLM,
)

from kronpress.activations import attention
from kronpress.activations.attention import Attention, attend, recording, training_attention
from kronpress.losses.relations import scores_of
from tests.tiny import DEPTH, DIM, POSITIONS, VOCABULARY, WIDTH, some_ids, tiny_bert, tiny_gpt2, tiny_llama

BLOCK = 128
SIZES = {"vocab_size": VOCABULARY, "max_position_embeddings": POSITIONS, "initializer_range": 0.2}


def tiny_roberta() -> PreTrainedModel:
    fields = {"hidden_size": DIM, "intermediate_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": 4}
    torch.manual_seed(0)
    return RobertaForMaskedLM(RobertaConfig(**SIZES, **fields)).eval()


def tiny_distilbert() -> PreTrainedModel:
    torch.manual_seed(0)
    config = DistilBertConfig(**SIZES, dim=DIM, hidden_dim=WIDTH, n_layers=DEPTH, n_heads=4)
    return DistilBertForMaskedLM(config).eval()


BUILDS = {
    "llama": tiny_llama,
    "llama with wider heads": lambda: tiny_llama(head_dim=8),
    "gpt2": tiny_gpt2,
    "gpt2 scaled by layer": lambda: tiny_gpt2(scale_attn_by_inverse_layer_idx=True),
    "bert": tiny_bert,
    "distilbert": tiny_distilbert,
    "roberta": tiny_roberta,
}


def some_states(*, tokens: int, groups: int, dtype: torch.dtype = torch.bfloat16) -> list[torch.Tensor]:
    """Query, key and value of four heads that share `groups` keys."""
    generator = torch.Generator().manual_seed(tokens)
    return [
        torch.randn(2, heads, tokens, 16, generator=generator).to(dtype).requires_grad_()
        for heads in (4, groups, groups)
    ]


def reference(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
    states = [each.float() for each in (query, key, value)]
    result = F.scaled_dot_product_attention(*states, is_causal=True, scale=scaling, enable_gqa=True)
    return result.transpose(1, 2)


class Layer(nn.Module):
    """What an attention layer tells of itself."""

    def __init__(self, groups: int, *, causal: bool = True) -> None:
        super().__init__()
        self.is_causal, self.num_key_value_groups = causal, 4 // groups


@contextmanager
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Notes each block of queries."""
    blocks: list[int] = []
    probabilities = attention._probabilities

    def noted(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        blocks.append(q.shape[2])
        return probabilities(q, k)

    with monkeypatch.context() as patch:
        patch.setattr(attention, "_probabilities", noted)
        yield blocks


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("tokens", [2, 100, BLOCK, BLOCK + 1, 3 * BLOCK - 5])
def test_blocks_give_what_sdpa_gives(tokens: int, groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    states = some_states(tokens=tokens, groups=groups)
    with counting(monkeypatch) as blocks:
        output, _ = attend(Layer(groups), *states, None, scaling=0.2)
    assert blocks == [min(BLOCK, tokens - start) for start in range(0, tokens, BLOCK)]
    expected = reference(*states, 0.2)
    assert output.dtype == torch.bfloat16
    assert output.is_contiguous()
    torch.testing.assert_close(output.float(), expected, atol=0.03, rtol=0.03)
    upper = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    ours = torch.autograd.grad(output, states, upper.bfloat16())
    theirs = torch.autograd.grad(expected, states, upper)
    for found, known in zip(ours, theirs, strict=True):
        assert found.dtype == torch.bfloat16
        noise = (found.float() - known.float()).norm() / known.float().norm()
        assert noise < 0.02


def test_blocks_are_exact_up_to_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same code on double precision numbers."""
    monkeypatch.setattr(attention, "_BLOCK", 4)
    states = some_states(tokens=11, groups=2, dtype=torch.float64)
    output = attention._CausalBlocks.apply(*states, 0.3)
    expected = F.scaled_dot_product_attention(*states, is_causal=True, scale=0.3, enable_gqa=True)
    torch.testing.assert_close(output, expected)
    upper = torch.randn(output.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(torch.autograd.grad(output, states, upper), torch.autograd.grad(expected, states, upper))


@pytest.mark.parametrize("case", ["mask", "dropout", "not causal", "single precision", "one token"])
def test_other_calls_are_left_to_sdpa(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = Layer(2, causal=case != "not causal")
    dtype = torch.float32 if case == "single precision" else torch.bfloat16
    mask = torch.ones(2, 1, 6, 6, dtype=torch.bool) if case == "mask" else None
    states = some_states(tokens=1 if case == "one token" else 6, groups=2, dtype=dtype)
    with counting(monkeypatch) as blocks:
        output, _ = attend(layer, *states, mask, dropout=0.5 if case == "dropout" else 0.0)
    assert not blocks
    assert output.shape == (2, states[0].shape[2], 4, 16)


@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("name", BUILDS)
def test_what_is_recorded_gives_the_attention_of_transformers(name: str, padded: bool) -> None:
    model, ids = BUILDS[name](), some_ids()
    mask = torch.ones_like(ids)
    if padded:
        mask[0, -4:] = 0
    found: list[Attention] = []
    with torch.no_grad(), training_attention(model):
        with recording(found):
            logits = model(input_ids=ids, attention_mask=mask).logits
        model(input_ids=ids, attention_mask=mask)  # outside of the block nothing is recorded
    assert len(found) == DEPTH
    assert model.config._attn_implementation != attention.NAME
    model.set_attn_implementation("eager")
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=mask, output_attentions=True)
    seen = mask.bool()
    torch.testing.assert_close(logits[seen], expected.logits[seen], atol=1e-4, rtol=1e-4)
    for ours, theirs in zip(found, expected.attentions, strict=True):
        scores = scores_of(ours).masked_fill(~ours.visible, -torch.inf)
        probabilities = scores.softmax(dim=-1).transpose(1, 2)[seen]
        torch.testing.assert_close(probabilities, theirs.transpose(1, 2)[seen], atol=1e-5, rtol=1e-4)


def test_two_models_record_apart() -> None:
    llama, gpt2 = tiny_llama(), tiny_gpt2()
    first: list[Attention] = []
    second: list[Attention] = []
    with torch.no_grad(), training_attention(llama, gpt2), recording(first):
        llama(input_ids=some_ids())
        with recording(second):
            gpt2(input_ids=some_ids())
    assert {each.key.shape[1] for each in first} == {2}
    assert {each.key.shape[1] for each in second} == {4}


def test_a_model_has_its_own_attention_back_after_an_error() -> None:
    model = tiny_llama()
    before = model.config._attn_implementation
    with pytest.raises(RuntimeError, match="stop"), training_attention(model):
        assert model.config._attn_implementation == attention.NAME
        raise RuntimeError("stop")
    assert model.config._attn_implementation == before
