"""What a model weighs: numbers, bytes and operations, with the output head accounted for openly."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from kronpress.checkpoint import structured_layers
from kronpress.errors import KronpressError
from kronpress.families import layout
from kronpress.layers import StructuredLayer, bias_of, weight_of


@dataclass(frozen=True)
class Footprint:
    """The size of a model.

    `parameters` counts what is stored, a tied head once; `parameters_untied` counts the head as a matrix of its own,
    as some papers do; `parameters_without_head` leaves an untied head out (a tied one is the embedding, which stays).
    `bytes_in_memory` covers parameters and buffers, `bytes_on_disk` the safetensors files or None without a folder.
    `parameters_effective` counts the dense matrices that factors stand for: what the model computes with, not stores.
    `flops_per_token` is 2 for each multiply-add of the linear and structured layers, the head included; the attention
    scores, which grow with the length of the text, and element-wise work are left out. `block_flops_per_token`
    covers the blocks alone, as papers count: an inner product of length n is 2n − 1 (KroneckerBERT, eq. 7).
    """

    parameters: int
    parameters_untied: int
    parameters_without_head: int
    parameters_effective: int
    bytes_in_memory: int
    bytes_on_disk: int | None
    flops_per_token: int
    block_flops_per_token: int


def footprint(model: PreTrainedModel, *, folder: str | Path | None = None) -> Footprint:
    """Measure `model`, which may be on the meta device, and the checkpoint in `folder`.

    Raises:
        KronpressError: where `folder` holds no safetensors file.
    """
    stored = _stored(model)
    head = model.get_output_embeddings()
    tied = head is not None and _shares(head, model.get_input_embeddings())
    factored = _structured_once(model, tied_head=head if tied else None)
    return Footprint(
        parameters=stored,
        parameters_untied=stored + _weight_count(head) if tied else stored,
        parameters_without_head=stored if tied else stored - _weight_count(head) - _bias_count(head),
        parameters_effective=stored + sum(map(_numbers_saved, factored)),
        bytes_in_memory=sum(tensor.numel() * tensor.element_size() for tensor in _tensors(model)),
        bytes_on_disk=None if folder is None else _bytes_on_disk(Path(folder)),
        flops_per_token=sum(2 * length * count for length, count in _inner_products(model)),
        block_flops_per_token=sum((2 * length - 1) * count for length, count in _inner_products(*_blocks(model))),
    )


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    """Go through parameters and buffers, a shared one once."""
    return itertools.chain(module.parameters(), module.buffers())


def _shares(head: nn.Module, embedding: nn.Module) -> bool:
    return bool({id(tensor) for tensor in _tensors(head)} & {id(tensor) for tensor in _tensors(embedding)})


def _stored(model: nn.Module) -> int:
    """Count the numbers stored; a layer that packs its weights into buffers says itself how many they are."""
    packed = {
        tuple(id(buffer) for buffer in layer.buffers()): layer.parameter_count - _parameter_count(layer)
        for layer in model.modules()
        if isinstance(layer, StructuredLayer) and any(True for _ in layer.buffers())
    }
    return _parameter_count(model) + sum(packed.values())


def _parameter_count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _structured_once(model: PreTrainedModel, *, tied_head: nn.Module | None) -> list[StructuredLayer]:
    return [layer for layer in structured_layers(model).values() if layer is not tied_head]


def _numbers_saved(layer: StructuredLayer) -> int:
    return layer.matrix[0] * layer.matrix[1] - _weight_count(layer)


def _weight_count(head: nn.Module | None) -> int:
    """Count the numbers of the head's weight, without its bias."""
    if head is None:
        return 0
    total = head.parameter_count if isinstance(head, StructuredLayer) else _parameter_count(head)
    return total - _bias_count(head)


def _bias_count(head: nn.Module | None) -> int:
    bias = None if head is None else bias_of(head)
    return 0 if bias is None else bias.numel()


def _blocks(model: PreTrainedModel) -> list[nn.Module]:
    return [model.get_submodule(path) for path in layout(model).block_paths]


def _inner_products(*modules: nn.Module) -> Iterator[tuple[int, int]]:
    """Go through the (length, count) of the inner products that one token takes."""
    seen: set[nn.Module] = set()
    for layer in (layer for module in modules for layer in _computing_layers(module, seen)):
        if isinstance(layer, StructuredLayer):
            yield from layer.inner_products
        else:
            rows, columns = weight_of(layer).shape
            yield columns, rows


def _computing_layers(module: nn.Module, seen: set[nn.Module]) -> Iterator[nn.Module]:
    """Go through linear and structured layers, each once and none inside of another."""
    if module in seen:
        return
    seen.add(module)
    if isinstance(module, (StructuredLayer, nn.Linear, Conv1D)):
        yield module
        return
    for child in module.children():
        yield from _computing_layers(child, seen)


def _bytes_on_disk(folder: Path) -> int:
    files = [path for path in folder.glob("*.safetensors") if not path.name.startswith("kronpress_")]  # the probe
    if not files:
        raise KronpressError(f"'{folder}' holds no *.safetensors file; name the folder of a saved checkpoint")
    return sum(file.stat().st_size for file in files)
