"""Digests of tensors, which tell whether they are still the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kronpress.checkpoint import files
from kronpress.layers import packed


def tensors_digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Return the SHA-256 of names, dtypes, shapes and bytes, as hexadecimal digits."""
    digest = hashlib.sha256()
    for name, value in tensors:
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def weights_digest(model: PreTrainedModel) -> str:
    """Return the digest of what a model stores: parameters, codes and orders."""
    with packed(model):
        return tensors_digest(model.state_dict().items())


def model_sources(names: Iterable[str]) -> dict[str, str]:
    """Return digests of the models among `names` that lie in folders or files here, by what messages call them."""
    return {f"the model '{name}'": files.digest(Path(name)) for name in names if Path(name).exists()}
