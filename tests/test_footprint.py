from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM

from kronpress.errors import KronpressError
from kronpress.evaluate import footprint
from kronpress.layers import (
    FactoredHead,
    KroneckerEmbeddingSpec,
    KroneckerLinearSpec,
    StructuredLayer,
    StructuredSpec,
    TensorFormat,
    TensorSpec,
)
from kronpress.memory import peak_rss_bytes
from tests.tiny import DEPTH, tiny_bert, tiny_llama


@pytest.fixture
def llama() -> LlamaForCausalLM:
    """Return an untied decoder."""
    return tiny_llama(tied=False)


class PackedSpec(StructuredSpec):
    """32 weights of one bit each, and one scale."""

    kind: ClassVar[str] = "packed"

    @property
    def matrix(self) -> tuple[int, int]:
        return 8, 4

    @property
    def own_tensors(self) -> dict[str, TensorSpec]:
        return {"codes": TensorSpec((8, 4), TensorFormat("binary", 1)), "scale": self.tensor(1)}

    @property
    def inner_products(self) -> list[tuple[int, int]]:
        return [(4, 8)]


class Packed(StructuredLayer):
    """A layer that holds its weights in four bytes of a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("codes", torch.zeros(4, dtype=torch.uint8))
        self.scale = nn.Parameter(torch.ones(1))

    @property
    def spec(self) -> PackedSpec:
        return PackedSpec()

    def to_dense(self) -> nn.Module:
        return nn.Linear(4, 8, bias=False)


def test_gpt2_small_as_published() -> None:
    with torch.device("meta"):
        model = GPT2LMHeadModel(GPT2Config())
    found = footprint(model)
    assert found.parameters == found.parameters_without_head == 124_439_808
    assert found.parameters_untied == 163_037_184
    assert found.flops_per_token == 2 * (12 * 12 * 768 * 768 + 50257 * 768)
    assert found.bytes_in_memory >= 4 * found.parameters
    assert found.bytes_on_disk is None


def test_an_untied_head_is_left_out(llama: LlamaForCausalLM) -> None:
    found, head = footprint(llama), llama.config.vocab_size * llama.config.hidden_size
    assert found.parameters == found.parameters_untied == sum(p.numel() for p in llama.parameters())
    assert found.parameters_without_head == found.parameters - head
    # per block: q and o 16×16, k and v 8×16, three of 24×16
    assert found.flops_per_token == 2 * (DEPTH * (2 * 16 * 16 + 2 * 8 * 16 + 3 * 24 * 16) + head)


def test_encoders_have_no_head() -> None:
    found = footprint(tiny_bert().bert)
    assert found.parameters == found.parameters_untied == found.parameters_without_head
    assert found.flops_per_token == 2 * DEPTH * (4 * 16 * 16 + 2 * 16 * 24)


def test_structured_layers_count_as_they_say(llama: LlamaForCausalLM) -> None:
    before = footprint(llama)
    layer = KroneckerLinearSpec(left=(4, 4), right=(6, 4), terms=2, bias=False).build()
    llama.model.layers[0].mlp.up_proj = layer
    after = footprint(llama)
    assert before.parameters - after.parameters == 24 * 16 - 2 * (16 + 24)
    assert before.flops_per_token - after.flops_per_token == 2 * 24 * 16 - layer.flops_per_token
    assert before.parameters == before.parameters_effective == after.parameters_effective


def test_a_tied_structured_head_is_counted_once(llama: LlamaForCausalLM) -> None:
    table = KroneckerEmbeddingSpec(left=(33, 4), right=(8, 4), terms=1).build()
    llama.set_input_embeddings(table)
    llama.set_output_embeddings(FactoredHead.of(table))
    found = footprint(llama)
    assert found.parameters == found.parameters_without_head == sum(p.numel() for p in llama.parameters())
    assert found.parameters_untied == found.parameters + 33 * 4 + 8 * 4


def test_packed_weights_are_counted_as_weights(llama: LlamaForCausalLM) -> None:
    before = footprint(llama)
    llama.model.layers[0].mlp.up_proj = Packed()
    llama.model.layers[1].mlp.up_proj = llama.model.layers[0].mlp.up_proj
    after = footprint(llama)
    assert before.parameters - after.parameters == 2 * 24 * 16 - 33
    assert before.bytes_in_memory - after.bytes_in_memory == 4 * 2 * 24 * 16 - (4 + 4)


def test_bytes_follow_the_dtype_and_the_files(llama: LlamaForCausalLM, tmp_path: Path) -> None:
    with pytest.raises(KronpressError, match=r"holds no \*\.safetensors file; name the folder"):
        footprint(llama, folder=tmp_path)
    (tmp_path / "model-1.safetensors").write_bytes(b"12345")
    (tmp_path / "model-2.safetensors").write_bytes(b"123")
    (tmp_path / "optimizer.pt").write_bytes(b"1")
    assert footprint(llama, folder=tmp_path).bytes_on_disk == 8
    buffers = sum(b.numel() * b.element_size() for b in llama.buffers())
    numbers = footprint(llama).parameters
    assert footprint(llama).bytes_in_memory == 4 * numbers + buffers
    for parameter in llama.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    assert footprint(llama).bytes_in_memory == 2 * numbers + buffers


def test_peak_memory_is_that_of_a_process_with_torch() -> None:
    assert 50e6 < peak_rss_bytes() < 1e12
