"""How far a walk came, in files: one that was interrupted goes on from there and ends with the same bits."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from jaxtyping import Int
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import PreTrainedModel

from kronpress.activations.block_files import block_file, read_block, write_block
from kronpress.activations.resident import stays_in_files
from kronpress.activations.stream import BlockStream
from kronpress.checkpoint import files
from kronpress.errors import KronpressError
from kronpress.families import layout
from kronpress.records import Record, decode, encode

SECONDS = 60.0  # between two times that progress is written
_WALK = "walk.safetensors"
_AT_ONCE = 2**22  # numbers
_REMEDY = "remove it, and the step begins anew"

R = TypeVar("R", bound=Record)


@dataclass
class WalkProgress(Generic[R]):
    """The finished blocks of a walk, and the streams as they come to the next one.

    Attributes:
        folder: for the files, which are this walk's alone.
        key: what tells the walk from others; files of another one are removed.
        kind: of the records of changes.
        changes: what the caller has changed in each block so far, those of an interrupted walk included.
    """

    folder: Path
    key: str
    kind: type[R]
    changes: list[list[R]] = field(default_factory=list)
    _since: float = field(default_factory=time.monotonic)
    _written: int = 0

    @classmethod
    def of(
        cls,
        folder: Path,
        model: PreTrainedModel,
        windows: Int[Tensor, "windows tokens"],
        *,
        facts: Mapping[str, Any],
        kind: type[R],
    ) -> WalkProgress[R]:
        """Return the progress of a walk of these windows through the model as it is now, by a step that is `facts`."""
        sums = [_sum(parameter.detach()) for parameter in model.parameters()]
        told = hashlib.sha256(windows.cpu().numpy().tobytes())
        told.update(json.dumps([facts, sums, list(windows.shape)], sort_keys=True).encode())
        return cls(folder, told.hexdigest(), kind)

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
            path_in_model, path_on_disk = layout(model).block_paths[block], block_file(self.folder, block)
            read_block(model, path_in_model, path=path_on_disk, mapped=stays_in_files(model))
        self._written = len(done)
        self.changes = [[decode(self.kind, one, place=path, remedy=_REMEDY) for one in block] for block in done]

    def keep(self, model: PreTrainedModel, streams: Sequence[BlockStream]) -> None:
        """Write down the finished blocks and the streams, if it is time; the last file says what counts."""
        if time.monotonic() - self._since < SECONDS:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        if not stays_in_files(model):  # where a block is written as the walk leaves it
            for block in range(self._written, len(self.changes)):
                module = model.get_submodule(layout(model).block_paths[block])
                write_block(block_file(self.folder, block), module)
        hidden = {f"{number}.{index}": part for number, s in enumerate(streams) for index, part in enumerate(s.hidden)}
        changes = json.dumps([[encode(change) for change in block] for block in self.changes])
        files.write_tensors(self.folder / _WALK, hidden, metadata={"key": self.key, "changes": changes})
        self._written, self._since = len(self.changes), time.monotonic()

    def finish(self) -> tuple[R, ...]:
        """Remove the files; return all changes in the order of the blocks."""
        files.remove(self.folder)
        return tuple(chain.from_iterable(self.changes))


def _sum(tensor: Tensor) -> float:
    """Return the sum in float64, of which torch would first make a copy of the whole tensor."""
    return sum(float(part.sum(dtype=torch.float64)) for part in tensor.reshape(-1).split(_AT_ONCE))
