"""How far a walk came, in files: one that was interrupted goes on from there and ends with the same bits."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from jaxtyping import Int
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel

from kronpress.activations.stream import BlockStream
from kronpress.checkpoint import files
from kronpress.errors import KronpressError
from kronpress.families import layout, replace_module
from kronpress.layers import DenseLinearSpec, LayerSpec, StructuredSpec, narrowed, parse_spec, spec_of
from kronpress.records import LayerChange, decode, encode

SECONDS = 60.0  # between two times that progress is written
_WALK = "walk.safetensors"
_REMEDY = "remove it, and the step begins anew"


@dataclass
class WalkProgress:
    """The finished blocks of a walk, and the streams as they come to the next one.

    Attributes:
        folder: for the files, which are this walk's alone.
        key: what tells the walk from others; files of another one are removed.
        changes: what the caller has changed in each block so far, those of an interrupted walk included.
    """

    folder: Path
    key: str
    changes: list[list[LayerChange]] = field(default_factory=list)
    _since: float = field(default_factory=time.monotonic)
    _written: int = 0

    @classmethod
    def of(
        cls, folder: Path, model: PreTrainedModel, windows: Int[Tensor, "windows tokens"], *, facts: Mapping[str, Any]
    ) -> WalkProgress:
        """Return the progress of a walk of these windows through the model as it is now, by a step that is `facts`."""
        sums = [float(parameter.detach().sum(dtype=torch.float64)) for parameter in model.parameters()]
        told = hashlib.sha256(windows.cpu().numpy().tobytes())
        told.update(json.dumps([facts, sums, list(windows.shape)], sort_keys=True).encode())
        return cls(folder, told.hexdigest())

    def restore(self, model: PreTrainedModel, streams: Sequence[BlockStream]) -> None:
        """Put the finished blocks into the model, and move the streams behind them.

        Raises:
            KronpressError: a file is damaged or missing.
        """
        try:
            if (self.folder / _WALK).exists():
                self._restore(model, streams)
        except (SafetensorError, OSError, KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise KronpressError(f"the unfinished work in {self.folder} is damaged ({reason}); {_REMEDY}") from error

    def _restore(self, model: PreTrainedModel, streams: Sequence[BlockStream]) -> None:
        path = self.folder / _WALK
        with safe_open(path, framework="pt", device=str(model.device)) as opened:
            facts = opened.metadata()
            if facts["key"] != self.key:
                files.remove(self.folder)
                return
            for number, stream in enumerate(streams):
                stream.hidden = [opened.get_tensor(f"{number}.{index}") for index in range(len(stream.hidden))]
        done: list[list[dict[str, Any]]] = json.loads(facts["changes"])
        for block in range(len(done)):
            _put_back(model, layout(model).block_paths[block], path=self._block(block))
        self._written = len(done)
        self.changes = [[decode(LayerChange, one, place=path, remedy=_REMEDY) for one in block] for block in done]

    def keep(self, model: PreTrainedModel, streams: Sequence[BlockStream]) -> None:
        """Write down the finished blocks and the streams, if it is time; the last file says what counts."""
        if time.monotonic() - self._since < SECONDS:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        for block in range(self._written, len(self.changes)):
            module = model.get_submodule(layout(model).block_paths[block])
            specs = {path: spec.model_dump(mode="json") for path, spec in _specs(module).items()}
            files.write_tensors(self._block(block), module.state_dict(), metadata={"specs": json.dumps(specs)})
        hidden = {f"{number}.{index}": part for number, s in enumerate(streams) for index, part in enumerate(s.hidden)}
        changes = json.dumps([[encode(change) for change in block] for block in self.changes])
        files.write_tensors(self.folder / _WALK, hidden, metadata={"key": self.key, "changes": changes})
        self._written, self._since = len(self.changes), time.monotonic()

    def finish(self) -> tuple[LayerChange, ...]:
        """Remove the files; return all changes in the order of the blocks."""
        files.remove(self.folder)
        return tuple(chain.from_iterable(self.changes))

    def _block(self, block: int) -> Path:
        return self.folder / f"block-{block:03}.safetensors"


def _specs(block: nn.Module) -> dict[str, LayerSpec]:
    """Return what stands at each path of a block, a layer of several parts as one."""
    found: dict[str, LayerSpec] = {}
    for path, module in block.named_modules():
        inside = any(path.startswith(f"{other}.") for other in found)
        if not inside and (spec := spec_of(module)) is not None:
            found[path] = spec
    return found


@torch.no_grad()
def _put_back(model: PreTrainedModel, block_path: str, *, path: Path) -> None:
    """Give a block the layers and numbers that it had when it was finished."""
    block = model.get_submodule(block_path)
    with safe_open(path, framework="pt") as opened:
        specs = json.loads(opened.metadata()["specs"])
    there = _specs(block)
    for name, fields in specs.items():
        spec: LayerSpec = parse_spec(fields, LayerSpec, place=str(path))
        if spec != there[name]:
            replace_module(model, f"{block_path}.{name}", module=_empty(spec, block.get_submodule(name)))
    block.load_state_dict(safetensors.torch.load_file(path, device=str(model.device)))


def _empty(spec: LayerSpec, there: nn.Module) -> nn.Module:
    """Return a layer of a form, without its numbers, for the place of another one."""
    like = next(there.parameters())
    if isinstance(spec, StructuredSpec):
        return spec.build(device=like.device, dtype=like.dtype)
    assert isinstance(spec, DenseLinearSpec), f"{spec.kind} cannot stand in a block"
    rows, columns = spec.matrix
    bias = like.new_empty(rows) if spec.bias else None
    return narrowed(there, like.new_empty(rows, columns), bias=bias)
