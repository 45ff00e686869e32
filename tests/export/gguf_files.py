"""Read GGUF files and blocks by their description alone, and make tiny models to write into them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from kronpress.families import replace_module
from kronpress.layers import (
    Coded,
    Grid,
    QuantizedEmbedding,
    QuantizedLinear,
    QuantizedTensor,
    StructuredLayer,
    matrices_of,
    weight_of,
)
from tests.tiny import DEPTH, POSITIONS, TEXT, VOCABULARY, tiny_gpt2, tiny_llama

FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Of fixed-size metadata, by the number of its type."""

Block = Callable[[np.ndarray], np.ndarray]


class Described(NamedTuple):
    """A number type as it is described: numbers and bytes of a block, and what the bytes stand for."""

    numbers: int
    bytes: int
    read: Block


def half(block: np.ndarray, at: int) -> np.float32:
    return np.float32(block[at : at + 2].view("<f2")[0])


def read_q1_0(block: np.ndarray) -> np.ndarray:
    """fp16 d, then bit j % 8 of byte j // 8: -d or d."""
    bits = [(block[2 + j // 8] >> (j % 8)) & 1 for j in range(128)]
    return half(block, 0) * np.array([1 if bit else -1 for bit in bits], np.float32)


def read_q2_0(block: np.ndarray) -> np.ndarray:
    """fp16 d, then bits 2 · (j % 4) of byte j // 4: -d, 0, d or 2d."""
    crumbs = [(int(block[2 + j // 4]) >> (2 * (j % 4))) & 3 for j in range(64)]
    return half(block, 0) * (np.array(crumbs, np.float32) - 1)


def read_q8_0(block: np.ndarray) -> np.ndarray:
    return half(block, 0) * block[2:].view(np.int8).astype(np.float32)


def nibbles(block: np.ndarray) -> np.ndarray:
    return np.array([block[j] & 15 for j in range(16)] + [block[j] >> 4 for j in range(16)], np.float32)


def read_q4_0(block: np.ndarray) -> np.ndarray:
    return half(block, 0) * (nibbles(block[2:]) - 8)


def read_q4_1(block: np.ndarray) -> np.ndarray:
    return half(block, 0) * nibbles(block[4:]) + half(block, 2)


def read_tq2_0(block: np.ndarray) -> np.ndarray:
    places = [(32 * (j // 128) + j % 32, 2 * (j % 128 // 32)) for j in range(256)]
    return half(block, 64) * np.array([((int(block[at]) >> shift) & 3) - 1 for at, shift in places], np.float32)


def read_tq1_0(block: np.ndarray) -> np.ndarray:
    """A byte times 3 to the n-th, modulo 256, has the n-th digit as its part above 256 when tripled."""
    places = [(j % 32, j // 32) for j in range(160)]
    places += [(32 + j % 16, j // 16) for j in range(80)]
    places += [(48 + j % 4, j // 4) for j in range(16)]
    trits = [((int(block[at]) * 3**digit % 256) * 3 >> 8) - 1 for at, digit in places]
    return half(block, 52) * np.array(trits, np.float32)


DESCRIBED: Mapping[str, Described] = {
    "f32": Described(1, 4, lambda block: block.view("<f4")),
    "f16": Described(1, 2, lambda block: block.view("<f2").astype(np.float32)),
    "bf16": Described(1, 2, lambda block: (block.view("<u2").astype(np.uint32) << 16).view(np.float32)),
    "q4_0": Described(32, 18, read_q4_0),
    "q4_1": Described(32, 20, read_q4_1),
    "q8_0": Described(32, 34, read_q8_0),
    "tq1_0": Described(256, 54, read_tq1_0),
    "tq2_0": Described(256, 66, read_tq2_0),
    "q1_0": Described(128, 18, read_q1_0),
    "q2_0": Described(64, 18, read_q2_0),
}
NUMBERS = {
    0: "f32",
    1: "f16",
    2: "q4_0",
    3: "q4_1",
    8: "q8_0",
    30: "bf16",
    34: "tq1_0",
    35: "tq2_0",
    41: "q1_0",
    42: "q2_0",
}


def dequantized(data: np.ndarray, name: str) -> np.ndarray:
    """The numbers that the rows of bytes of a type stand for."""
    described = DESCRIBED[name]
    blocks = np.ascontiguousarray(data).view(np.uint8).reshape(-1, described.bytes)
    if described.numbers == 1:
        return described.read(blocks.reshape(-1)).reshape(len(data), -1)
    return np.stack([described.read(block) for block in blocks]).reshape(len(data), -1)


class Stored(NamedTuple):
    """A tensor in a file."""

    name: str
    kind: str
    shape: tuple[int, ...]
    data: np.ndarray

    @property
    def numbers(self) -> np.ndarray:
        rows = self.shape[0] if len(self.shape) > 1 else 1
        return dequantized(self.data.reshape(rows, -1), self.kind).reshape(self.shape)


class GgufFile:
    """A file as the specification of GGUF, version 3, describes it.

    Attributes:
        fields: its metadata.
        tensors: by name.
    """

    def __init__(self, path: Path) -> None:
        self._bytes, self._at = path.read_bytes(), 4
        assert self._bytes[:4] == b"GGUF"
        version, count, fields = self._take("IQQ")
        assert version == 3
        self.fields = dict((self._text(), self._value(*self._take("I"))) for _ in range(fields))
        infos = [self._info() for _ in range(count)]
        start = -(-self._at // 32) * 32
        self.tensors = {info[0]: self._tensor(*info, start=start) for info in infos}

    def _take(self, formats: str) -> tuple[Any, ...]:
        values = struct.unpack_from(f"<{formats}", self._bytes, self._at)
        self._at += struct.calcsize(f"<{formats}")
        return values

    def _text(self) -> str:
        (length,) = self._take("Q")
        self._at += length
        return self._bytes[self._at - length : self._at].decode()

    def _value(self, kind: int) -> Any:
        if kind == 8:
            return self._text()
        if kind == 9:
            element, count = self._take("IQ")
            return [self._value(element) for _ in range(count)]
        return self._take(FORMATS[kind])[0]

    def _info(self) -> tuple[str, tuple[int, ...], int, int]:
        name, (dims,) = self._text(), self._take("I")
        shape = self._take(f"{dims}Q")[::-1]
        return name, shape, *self._take("IQ")

    def _tensor(self, name: str, shape: tuple[int, ...], kind: int, offset: int, *, start: int) -> Stored:
        described = DESCRIBED[NUMBERS[kind]]
        size = int(np.prod(shape)) // described.numbers * described.bytes
        at = start + offset
        assert offset % 32 == 0
        assert at + size <= len(self._bytes)
        return Stored(name, NUMBERS[kind], shape, np.frombuffer(self._bytes[at : at + size], np.uint8))


def a_tokenizer() -> PreTrainedTokenizerFast:
    """A BPE over bytes with some merges and three special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special, alphabet = ["<unk>", "<s>", "</s>"], pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    names = dict(zip(("unk_token", "bos_token", "eos_token"), special, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def small_llama(**overrides: Any) -> PreTrainedModel:
    return tiny_llama(**({"hidden_size": 64, "intermediate_size": 128} | overrides))


def small_gpt2(**overrides: Any) -> PreTrainedModel:
    """One with the positions and the width that transformers takes for granted."""
    return tiny_gpt2(**({"n_embd": 64, "n_inner": 256, "n_positions": 1024} | overrides))


def a_model(model_class: type[Any], config_class: type[Any], **overrides: Any) -> PreTrainedModel:
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": DEPTH}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": POSITIONS}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class(config_class(**(sizes | heads | {"initializer_range": 0.2, "pad_token_id": 0} | overrides)))
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "norm" in name:
                nn.init.normal_(parameter, mean=float("norm" in name), std=0.2)
    return model.eval()


MODELS: Mapping[str, Callable[[], PreTrainedModel]] = {
    "llama": small_llama,
    "llama-untied": lambda: small_llama(tied=False),
    "mistral": lambda: a_model(MistralForCausalLM, MistralConfig, sliding_window=None),
    "qwen2": lambda: a_model(Qwen2ForCausalLM, Qwen2Config, tie_word_embeddings=True),
    "qwen3": lambda: a_model(Qwen3ForCausalLM, Qwen3Config, head_dim=128),
    "gemma3": lambda: a_model(
        Gemma3ForCausalLM, Gemma3TextConfig, head_dim=256, query_pre_attn_scalar=256, sliding_window=8
    ),
    "gpt2": small_gpt2,
    "gpt2-untied": lambda: small_gpt2(tied=False),
}


def rounded(tensor: torch.Tensor, grid: Grid) -> QuantizedTensor:
    """A tensor on the nearest places of a grid."""
    groups = grid.groups(tensor.detach().float())
    scale, shift = grid.span(groups)
    return QuantizedTensor.of(
        Coded(grid.codes(groups, scale, shift), scale, shift), grid, tensor.shape, dtype=tensor.dtype
    )


def quantized(model: PreTrainedModel, grids: Mapping[str, Grid]) -> PreTrainedModel:
    """The model with layers on grids, by the endings of their paths; those tied stay tied."""
    for path, module in list(model.named_modules()):
        for ending, grid in grids.items():
            if path.endswith(ending):
                replace_module(model, path, module=_on_grid(module, grid))
    return model


def _on_grid(module: nn.Module, grid: Grid) -> StructuredLayer:
    weight, bias = weight_of(module).detach(), getattr(module, "bias", None)
    if isinstance(module, nn.Embedding):
        layer: StructuredLayer = QuantizedEmbedding.of(weight)
    else:
        layer = QuantizedLinear.of(weight, bias=bias)
    (matrix,) = matrices_of(layer)
    matrix.store(rounded(matrix.tensor, grid))
    return layer
