"""What a model weighs: numbers, bytes and operations, with the output head accounted for openly."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from kronpress.errors import KronpressError
from kronpress.layers import StructuredLayer, bias_of

if sys.platform != "win32":
    import resource


@dataclass(frozen=True)
class Footprint:
    """The size of a model.

    `parameters` counts what is stored, a tied head once; `parameters_untied` counts the head as a matrix of its own,
    as some papers do; `parameters_without_head` leaves an untied head out (a tied one is the embedding, which stays).
    `bytes_in_memory` covers parameters and buffers, `bytes_on_disk` the safetensors files or None without a folder.
    `flops_per_token` is 2 for each multiply-add of the linear and structured layers, the head included; the attention
    scores, which grow with the length of the text, and element-wise work are left out.
    """

    parameters: int
    parameters_untied: int
    parameters_without_head: int
    bytes_in_memory: int
    bytes_on_disk: int | None
    flops_per_token: int


def footprint(model: PreTrainedModel, *, folder: str | Path | None = None) -> Footprint:
    """Measure `model`, which may be on the meta device, and the checkpoint in `folder`.

    Raises:
        KronpressError: where `folder` holds no safetensors file.
    """
    stored = _stored(model)
    head = model.get_output_embeddings()
    tied = head is not None and _shares(head, model.get_input_embeddings())
    return Footprint(
        parameters=stored,
        parameters_untied=stored + _weight_count(head) if tied else stored,
        parameters_without_head=stored if tied else stored - _weight_count(head) - _bias_count(head),
        bytes_in_memory=sum(tensor.numel() * tensor.element_size() for tensor in _tensors(model)),
        bytes_on_disk=None if folder is None else _bytes_on_disk(Path(folder)),
        flops_per_token=_flops(model),
    )


def peak_rss_bytes() -> int:
    """Return the most memory in bytes that this process has held so far; 0 where the platform does not tell."""
    if sys.platform == "win32":
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux kibibytes


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


def _weight_count(head: nn.Module | None) -> int:
    """Count the numbers of the head's weight, without its bias."""
    if head is None:
        return 0
    total = head.parameter_count if isinstance(head, StructuredLayer) else _parameter_count(head)
    return total - _bias_count(head)


def _bias_count(head: nn.Module | None) -> int:
    bias = None if head is None else bias_of(head)
    return 0 if bias is None else bias.numel()


def _flops(module: nn.Module) -> int:
    return sum(_layer_flops(layer) for layer in _computing_layers(module, set()))


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


def _layer_flops(layer: nn.Module) -> int:
    if isinstance(layer, StructuredLayer):
        return layer.flops_per_token
    assert isinstance(layer.weight, Tensor)
    return 2 * layer.weight.numel()


def _bytes_on_disk(folder: Path) -> int:
    files = [path for path in folder.glob("*.safetensors") if not path.name.startswith("kronpress_")]  # the probe
    if not files:
        raise KronpressError(f"'{folder}' holds no *.safetensors file; name the folder of a saved checkpoint")
    return sum(file.stat().st_size for file in files)
