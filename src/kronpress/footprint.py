"""What a model weighs: numbers, bytes and operations, with the output head accounted for openly."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from kronpress.checkpoint.file_size import file_size
from kronpress.errors import KronpressError
from kronpress.families import layout
from kronpress.families.dense_shapes import DenseShapes, dense_shapes
from kronpress.layers import (
    FLOAT32,
    FactoredHeadSpec,
    FactoredTableSpec,
    LayerSpec,
    StructuredSpec,
    TensorFormat,
    TensorSpec,
    require_same_place,
    spec_of,
    stored_numbers,
)
from kronpress.plan import Plan
from kronpress.records import Footprint


@overload
def footprint(subject: PreTrainedModel, *, folder: str | Path | None = None) -> Footprint: ...


@overload
def footprint(subject: Plan, config: PreTrainedConfig) -> Footprint: ...


def footprint(
    subject: PreTrainedModel | Plan, config: PreTrainedConfig | None = None, *, folder: str | Path | None = None
) -> Footprint:
    """Return what a model weighs, which may be on the meta device, or what one of a plan would, with nothing built.

    A plan is priced in the number format that the config names, or in float32; on disk in one safetensors file.

    Args:
        subject: the model, or a plan of it.
        config: with a plan, that of the dense model; see `dense_shapes` for which models that says enough.
        folder: with a model, its checkpoint, for the bytes on disk.

    Raises:
        KronpressError: `folder` holds no safetensors file, the sizes of a model are not known from its config, or the
            plan is not one of that model.
    """
    if isinstance(subject, Plan):
        assert config is not None, "a plan is priced with the config of the dense model"
        return _priced(_planned(subject, config))
    return _priced(_measured(subject, folder=None if folder is None else Path(folder)))


@dataclass(frozen=True)
class _Inventory:
    """What a model consists of.

    Attributes:
        parameters: the numbers stored.
        bytes: of all tensors in memory.
        bytes_on_disk: of the safetensors files; None where there is no folder.
        layers: path → the form of each layer that computes; one that stands at several paths is at one of them.
        blocks: the paths of the blocks.
        head: the form of the output head.
        tied: whether the head is the token table.
    """

    parameters: int
    bytes: int
    bytes_on_disk: int | None
    layers: Mapping[str, LayerSpec]
    blocks: tuple[str, ...]
    head: LayerSpec | None
    tied: bool


def _priced(model: _Inventory) -> Footprint:
    stored, layers = model.parameters, model.layers.values()
    weight, bias, tied = 0, 0, 0
    if model.head is not None:
        weight, bias = _weight_count(model.head), model.head.bias_parameters
        tied = _numbers_saved(model.head) if model.tied else 0  # which the token table has saved already
    saved = sum(map(_numbers_saved, layers)) - tied
    inside = tuple(f"{block}." for block in model.blocks)
    in_blocks = [layer for path, layer in model.layers.items() if path.startswith(inside)]
    return Footprint(
        parameters=stored,
        parameters_untied=stored + weight if model.tied else stored,
        parameters_without_head=stored if model.tied else stored - weight - bias,
        parameters_effective=stored + saved,
        bytes_in_memory=model.bytes,
        bytes_on_disk=model.bytes_on_disk,
        flops_per_token=sum(layer.flops_per_token for layer in layers),
        block_flops_per_token=sum((2 * n - 1) * count for layer in in_blocks for n, count in layer.inner_products),
    )


def _weight_count(layer: LayerSpec) -> int:
    """Count the numbers of the weight, without the bias."""
    return layer.parameters - layer.bias_parameters


def _numbers_saved(layer: LayerSpec) -> int:
    return layer.matrix[0] * layer.matrix[1] - _weight_count(layer)


def _planned(plan: Plan, config: PreTrainedConfig) -> _Inventory:
    """Take the inventory of the model of a plan, from shapes alone."""
    dense = dense_shapes(config, blocks=plan.blocks, widths=plan.widths)
    layers = _with_plan(dense, plan)
    head = layers.get(dense.head)
    tied = head is not None and bool(config.tie_word_embeddings) and _can_tie(layers[dense.embedding], head)
    stored_layers = {path: layer for path, layer in layers.items() if not (tied and path == dense.head)}
    tensors = {f"{path}.{name}": spec for path, layer in stored_layers.items() for name, spec in layer.tensors.items()}
    tensors |= dense.vectors
    if head is not None and (dense.shared_bias is not None or tied):
        bias = {dense.shared_bias or f"{dense.head}.bias": TensorSpec((head.matrix[0],))}
        tensors |= bias if dense.shared_bias is not None or head.bias_parameters else {}
    if head is None:  # a base model alone is stored without its prefix
        tensors = {name.removeprefix(dense.prefix): tensor for name, tensor in tensors.items()}
    stored = TensorFormat.of(config.dtype) if isinstance(config.dtype, torch.dtype) else FLOAT32
    return _Inventory(
        parameters=sum(tensor.parameters for tensor in tensors.values()),
        bytes=sum(tensor.bytes(stored) for tensor in (*tensors.values(), *dense.buffers.values())),
        bytes_on_disk=file_size(tensors, model=stored),
        layers=layers,
        blocks=dense.blocks,
        head=head,
        tied=tied,
    )


def _with_plan(dense: DenseShapes, plan: Plan) -> dict[str, LayerSpec]:
    """Return the layers of a model, those of the plan in their places."""
    layers = dict(dense.layers)
    for path, spec in plan.modules.items():
        place = path if path in layers else dense.prefix + path
        if place in layers:
            named = f"the plan's module '{path[:120]}'"
            require_same_place(spec, layers[place], place=named, remedy="name the config of the plan's own model")
            layers[place] = spec
        elif path != dense.head:  # which a base model lacks
            raise KronpressError(f"the plan names the module '{path[:120]}', and the model has none that it could be")
    return layers


def _can_tie(embedding: LayerSpec, head: LayerSpec) -> bool:
    """Say whether a head can be one with the token table: both are dense, or it reads the very factors."""
    if isinstance(embedding, FactoredTableSpec) and isinstance(head, FactoredHeadSpec):
        if head.table != embedding:
            raise KronpressError(
                "the plan's token table and output head are tied, and their factors have other shapes; set "
                "tie_word_embeddings to false, or give both the same"
            )
        return True
    return not isinstance(embedding, StructuredSpec) and not isinstance(head, StructuredSpec)


def _measured(model: PreTrainedModel, *, folder: Path | None) -> _Inventory:
    """Take the inventory of a model that is there."""
    head = model.get_output_embeddings()
    return _Inventory(
        parameters=stored_numbers(model),
        bytes=sum(tensor.numel() * tensor.element_size() for tensor in _tensors(model)),
        bytes_on_disk=None if folder is None else _bytes_on_disk(folder),
        layers={path: form for path, layer in _computing_layers(model, set()) if (form := spec_of(layer)) is not None},
        blocks=layout(model).block_paths,
        head=None if head is None else spec_of(head),
        tied=head is not None and _shares(head, model.get_input_embeddings()),
    )


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    """Go through parameters and buffers, a shared one once."""
    return itertools.chain(module.parameters(), module.buffers())


def _shares(head: nn.Module, embedding: nn.Module) -> bool:
    return bool({id(tensor) for tensor in _tensors(head)} & {id(tensor) for tensor in _tensors(embedding)})


def _computing_layers(module: nn.Module, seen: set[nn.Module], path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Go through linear and structured layers and tables by path, each once and none inside of another."""
    if module in seen:
        return
    seen.add(module)
    if spec_of(module) is not None:
        yield path, module
        return
    for name, child in module.named_children():
        yield from _computing_layers(child, seen, f"{path}.{name}".lstrip("."))


def _bytes_on_disk(folder: Path) -> int:
    files = [path for path in folder.glob("*.safetensors") if not path.name.startswith("kronpress_")]  # the probe
    if not files:
        raise KronpressError(f"'{folder}' holds no *.safetensors file; name the folder of a saved checkpoint")
    return sum(file.stat().st_size for file in files)
