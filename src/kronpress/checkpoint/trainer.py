"""Let `transformers.Trainer` find the weights of a model with structured layers, which have names of their own.

A checkpoint of a model that learns numbers on grids has its codes, and beside them what it goes on from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor
from transformers import Trainer

from kronpress.checkpoint import files, weights
from kronpress.checkpoint.plugin import KronpressModel
from kronpress.errors import KronpressError
from kronpress.layers import QuantizedTensor, RoundedInputs, is_learning

LEARNED = "kronpress_learned.safetensors"


def _save(self: Any, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
    _originals["_save"](self, output_dir, state_dict)
    if isinstance(self.model, KronpressModel) and is_learning(self.model):
        inside = _learning(self.model)
        learned = {key: tensor for key, tensor in self.model.state_dict().items() if key.startswith(inside)}
        files.write_tensors(Path(output_dir or self.args.output_dir) / LEARNED, learned)


def _resume(self: Any, resume_from_checkpoint: str, model: Any = None) -> None:
    if not _load(self.model if model is None else model, resume_from_checkpoint):
        _originals["_load_from_checkpoint"](self, resume_from_checkpoint, model)


def _return_to_best(self: Any) -> None:
    if not _load(self.model, self.state.best_model_checkpoint):
        _originals["_load_best_model"](self)


def _load(model: Any, folder: str) -> bool:
    if not isinstance(model, KronpressModel) or not weights.has_weights(Path(folder)):
        return False
    model.take_weights(_tensors(model, Path(folder)), place=folder)
    return True


def _tensors(model: KronpressModel, folder: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint; those of what learns as they were learned."""
    tensors = weights.read(folder)
    if not is_learning(model):
        return tensors
    if not (folder / LEARNED).exists():
        raise KronpressError(
            f"{folder} holds codes alone, and this model learns; train on with `kronpress.load('{folder}')` and "
            "`kronpress.quantizers.let_learn`, or name a checkpoint of a model that learned"
        )
    inside = _learning(model)
    return {key: tensor for key, tensor in tensors.items() if not key.startswith(inside)} | load_file(folder / LEARNED)


def _learning(model: KronpressModel) -> tuple[str, ...]:
    """Return how the names of all that learns begin."""
    parts = model.named_modules(remove_duplicate=False)
    return tuple(
        f"{name}." for name, part in parts if isinstance(part, QuantizedTensor | RoundedInputs) and part.learning
    )


_PATCHES = {"_save": _save, "_load_from_checkpoint": _resume, "_load_best_model": _return_to_best}
_originals = {name: getattr(Trainer, name) for name in _PATCHES}
for _name, _patch in _PATCHES.items():
    setattr(Trainer, _name, _patch)
