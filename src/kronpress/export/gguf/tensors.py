"""The tensors of a model as they are written into a GGUF file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from kronpress.errors import KronpressError
from kronpress.export.gguf.architectures import Architecture
from kronpress.export.gguf.blocks import packed_blocks
from kronpress.export.gguf.exact import on_gguf
from kronpress.export.gguf.rounding import round_as_gguf
from kronpress.export.gguf.types import TYPES, GgufType
from kronpress.layers import (
    FactoredHead,
    QuantizedEmbedding,
    QuantizedLinear,
    QuantizedTensor,
    StructuredLayer,
    bias_of,
    structured_layers,
)

Numbers = Tensor | QuantizedTensor

_FULL = TYPES["f32"]
_KEPT = ("position_embd.weight", "token_types.weight")  # llama.cpp adds them as they are, and quantizes neither
_FLOATS = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
_ROTATED = (".attn_q.", ".attn_k.")
OUTPUT, TABLE = "output.weight", "token_embd.weight"


class Stored(NamedTuple):
    """What is written of a tensor.

    Attributes:
        data: numbers, or the bytes of blocks.
        error: the sum of squares of what rounding changed.
        energy: that of the numbers, where they were rounded.
    """

    data: NDArray[Any]
    error: float = 0.0
    energy: float = 0.0


@dataclass(frozen=True)
class GgufTensor:
    """A tensor of a GGUF file.

    Attributes:
        name: in the file.
        numbers: as the model has them, a matrix as (outputs, inputs).
        kind: the number type that they are written in.
        place: where the model has them.
        rotated: heads whose rows are put into the order of GGUF's rotations, or None.
        offset: added to the numbers.
    """

    name: str
    numbers: Numbers
    kind: GgufType
    place: str
    rotated: int | None = None
    offset: float = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor, as torch has it."""
        return _shape(self.numbers)

    @property
    def bytes(self) -> int:
        """What it takes in the file."""
        return self.kind.bytes(self.shape)

    @property
    def on_grid(self) -> bool:
        """Whether the model has it on a grid."""
        return isinstance(self.numbers, QuantizedTensor)

    def write(self) -> Stored:
        """Return what is written."""
        stored = self._stored()
        return Stored(_reordered(stored.data, self.rotated), stored.error, stored.energy)

    def _stored(self) -> Stored:
        if isinstance(self.numbers, QuantizedTensor):
            kind, coded = _coded(self.numbers, prefer=self.kind, place=self.place)
            return Stored(packed_blocks(coded, kind))
        numbers = self.numbers.detach().cpu().float() + self.offset
        if self.kind.grid is None:
            return _plain(numbers, self.kind)
        coded = round_as_gguf(numbers, self.kind.name, place=self.place)
        values = self.kind.grid.values(*coded).view(numbers.shape)
        return Stored(packed_blocks(coded, self.kind), *_distance(values, numbers))


def _coded(tensor: QuantizedTensor, *, prefer: GgufType, place: str) -> Any:
    rows, columns = tensor.size
    return on_gguf(tensor.coded(), tensor.grid, shape=(rows, columns), prefer=prefer, place=place)


def _plain(numbers: Tensor, kind: GgufType) -> Stored:
    """Return numbers that are written each by itself."""
    rounded = numbers.to(_FLOATS[kind.name]).contiguous()
    words = rounded.view(torch.int16) if kind.name == "bf16" else rounded  # numpy has no bfloat16
    return Stored(words.numpy(), *_distance(rounded.float(), numbers))


def _distance(rounded: Tensor, numbers: Tensor) -> tuple[float, float]:
    return float((rounded - numbers).double().square().sum()), float(numbers.double().square().sum())


def _reordered(rows: NDArray[Any], heads: int | None) -> NDArray[Any]:
    """Put the rows of each head from two halves into pairs: 0, n/2, 1, n/2 + 1, …"""
    if heads is None:
        return np.ascontiguousarray(rows)
    halves = rows.reshape(heads, 2, len(rows) // heads // 2, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows.shape)


def _shape(numbers: Numbers) -> tuple[int, ...]:
    return tuple(numbers.size if isinstance(numbers, QuantizedTensor) else numbers.shape)


def gguf_tensors(
    model: PreTrainedModel, architecture: Architecture, names: Any, *, config: Any, kind: GgufType
) -> list[GgufTensor]:
    """Return the tensors of a model in the order that it has them; a head that is the table is left out.

    Args:
        model: dense, or with layers on grids.
        architecture: of its family.
        names: the `TensorNameMap` of the `gguf` library.
        config: of the base architecture.
        kind: for the matrices that are on no grid.

    Raises:
        KronpressError: GGUF has no place for a tensor, or no type that holds it.
    """
    tensors = {}
    for place, numbers in _parts(model, heads=architecture.causal):
        path, _, leaf = place.rpartition(".")
        name = names.get_name(path)
        if name is None:
            raise KronpressError(
                f"GGUF's architecture {architecture.name} has no place for {place}; export a plain model"
            )
        tensors[f"{name}.{leaf}"] = (place, numbers)
    if OUTPUT in tensors and _same(tensors[OUTPUT][1], tensors[TABLE][1]):
        del tensors[OUTPUT]
    made = [
        _written(name, numbers, kind, place=place, architecture=architecture, config=config)
        for name, (place, numbers) in tensors.items()
    ]
    _require_widths(made, architecture, config)
    return made


def _written(
    name: str, numbers: Numbers, kind: GgufType, *, place: str, architecture: Architecture, config: Any
) -> GgufTensor:
    if name in _KEPT and isinstance(numbers, QuantizedTensor):
        numbers = numbers()
    rotated = None
    if architecture.pairs_rotary and any(part in name for part in _ROTATED):
        rotated = config.num_attention_heads if ".attn_q." in name else config.num_key_value_heads
    offset = architecture.norm_offset if name.endswith("norm.weight") else 0
    return GgufTensor(name, numbers, _kind(name, numbers, kind, place=place), place, rotated, offset)


def _kind(name: str, numbers: Numbers, kind: GgufType, *, place: str) -> GgufType:
    """Return the type that a tensor is written in."""
    if isinstance(numbers, QuantizedTensor):
        own: GgufType = _coded(numbers, prefer=kind, place=place).kind
        return own
    if numbers.ndim == 1 or name in _KEPT:
        return _FULL
    kind.require(numbers.shape, place=place)
    return kind


def _parts(model: PreTrainedModel, *, heads: bool) -> Iterator[tuple[str, Numbers]]:
    """Go through the tensors that a model's base architecture has, by their names there.

    Args:
        model: dense, or with layers on grids.
        heads: whether those count that are not in the model's body; else neither do they nor the pooler, which only
            heads read.
    """
    body: nn.Module = model if heads else model.base_model
    layers = structured_layers(body)
    inside = tuple(f"{path}." for path in layers)
    for path, module in body.named_modules(remove_duplicate=False):
        if path.startswith(inside) or (not heads and path.startswith("pooler")):
            continue
        own = _own(layers[path], path) if path in layers else _plain_parts(module)
        yield from ((f"{path}.{leaf}", numbers) for leaf, numbers in own)


def _plain_parts(module: nn.Module) -> Iterator[tuple[str, Numbers]]:
    for leaf, parameter in module.named_parameters(recurse=False):
        yield leaf, parameter.T if isinstance(module, Conv1D) and leaf == "weight" else parameter


def _own(layer: StructuredLayer, path: str) -> Iterator[tuple[str, Numbers]]:
    """Go through weight and bias of a layer that has them."""
    bias = bias_of(layer)
    holder = layer.table if isinstance(layer, FactoredHead) else layer
    if not isinstance(holder, QuantizedLinear | QuantizedEmbedding):
        raise KronpressError(
            f"{path} computes with factors ({type(holder).__name__}), and GGUF has no place for factors; multiply them "
            "out first: `kronpress export MODEL --format dense --out DENSE`, then export DENSE"
        )
    stored = holder.quantized().get("weight")
    yield "weight", holder.weight if stored is None else stored
    if bias is not None:
        yield "bias", bias


def _same(head: Numbers, table: Numbers) -> bool:
    """Whether an output head is the token table."""
    if isinstance(head, Tensor) and isinstance(table, Tensor):
        return head is table or (head.shape == table.shape and torch.equal(head, table))
    return head is table


def _require_widths(tensors: list[GgufTensor], architecture: Architecture, config: Any) -> None:
    """Check that all blocks are as wide as the config says, which is the one width that a file tells."""
    width = architecture.sizes(config).feed_forward
    for tensor in tensors:
        if ".ffn_up.weight" in tensor.name and tensor.shape[0] != width:
            raise KronpressError(
                f"{tensor.place} has {tensor.shape[0]} rows where the config says {width}; a GGUF file tells one "
                "width for all blocks, so export a model whose blocks are equally wide"
            )
