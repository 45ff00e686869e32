"""Let `transformers.Trainer` find the weights of a model with structured layers, which have names of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import Trainer

from kronpress.checkpoint import weights
from kronpress.checkpoint.plugin import KronpressModel


def _resume(self: Any, resume_from_checkpoint: str, model: Any = None) -> None:
    if not _load(self.model if model is None else model, resume_from_checkpoint):
        _originals["_load_from_checkpoint"](self, resume_from_checkpoint, model)


def _return_to_best(self: Any) -> None:
    if not _load(self.model, self.state.best_model_checkpoint):
        _originals["_load_best_model"](self)


def _load(model: Any, folder: str) -> bool:
    if not isinstance(model, KronpressModel) or not weights.has_weights(Path(folder)):
        return False
    model.take_weights(weights.read(Path(folder)), place=folder)
    return True


_PATCHES = {"_load_from_checkpoint": _resume, "_load_best_model": _return_to_best}
_originals = {name: getattr(Trainer, name) for name in _PATCHES}
for _name, _patch in _PATCHES.items():
    setattr(Trainer, _name, _patch)
