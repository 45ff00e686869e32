"""Finished blocks in files: each has its layers' forms beside its numbers, so that any model of the kind takes it.

Numbers on grids are there as codes, and as they are learned.
"""

from __future__ import annotations

import json
from pathlib import Path

import safetensors.torch
import torch
from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel

from kronpress.checkpoint import files
from kronpress.families import replace_module
from kronpress.layers import (
    DenseLinearSpec,
    LayerSpec,
    StructuredSpec,
    is_learning,
    narrowed,
    packed,
    parse_spec,
    spec_of,
)
from kronpress.quantizers import go_on_learning, learned_by

_LEARNED = "learned: "


def block_file(folder: Path, block: int) -> Path:
    """Return the file of a block."""
    return folder / f"block-{block:03}.safetensors"


def write_block(path: Path, block: nn.Module) -> None:
    """Write the layers and numbers of a block.

    Raises:
        OSError: the disk is full, or the file cannot be written for another reason.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    specs = {name: spec.model_dump(mode="json") for name, spec in _specs(block).items()}
    learned, rules = learned_by(block)
    with packed(block):
        tensors = block.state_dict() | {_LEARNED + name: tensor for name, tensor in learned.items()}
    files.write_tensors(path, tensors, metadata={"specs": json.dumps(specs), "rules": json.dumps(rules)})


@torch.no_grad()
def read_block(model: PreTrainedModel, block_path: str, *, path: Path, mapped: bool) -> None:
    """Give a block the layers and numbers that a file holds.

    Args:
        model: the model of the block.
        block_path: where the block is.
        path: the file.
        mapped: leave the numbers in the file, which must stay as it is; else they are copied into memory.
    """
    block = model.get_submodule(block_path)
    with safe_open(path, framework="pt") as opened:
        specs, rules = (json.loads(opened.metadata()[key]) for key in ("specs", "rules"))
    there = _specs(block)
    for name, fields in specs.items():
        spec: LayerSpec = parse_spec(fields, LayerSpec, place=str(path))
        if spec != there[name] or is_learning(block.get_submodule(name)):
            replace_module(model, f"{block_path}.{name}", module=_empty(spec, block.get_submodule(name)))
    tensors = safetensors.torch.load_file(path, device=str(model.device))
    learned = {name.removeprefix(_LEARNED): tensors.pop(name) for name in list(tensors) if name.startswith(_LEARNED)}
    block.load_state_dict(tensors, assign=mapped)
    go_on_learning(block, learned, rules, place=path)


def _specs(block: nn.Module) -> dict[str, LayerSpec]:
    """Return what stands at each path of a block, a layer of several parts as one."""
    found: dict[str, LayerSpec] = {}
    for path, module in block.named_modules():
        inside = any(path.startswith(f"{other}.") for other in found)
        if not inside and (spec := spec_of(module)) is not None:
            found[path] = spec
    return found


def _empty(spec: LayerSpec, there: nn.Module) -> nn.Module:
    """Return a layer of a form, without its numbers, for the place of another one."""
    like = next(there.parameters())
    if isinstance(spec, StructuredSpec):
        return spec.build(device=like.device, dtype=like.dtype)
    assert isinstance(spec, DenseLinearSpec), f"{spec.kind} cannot stand in a block"
    rows, columns = spec.matrix
    bias = like.new_empty(rows) if spec.bias else None
    return narrowed(there, like.new_empty(rows, columns), bias=bias)
