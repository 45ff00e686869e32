"""What the results of a run depend on: they are the same when it is resumed, or it is not."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from kronpress.checkpoint.digests import weights_digest
from kronpress.data import Corpus
from kronpress.errors import KronpressError
from kronpress.precision import number_format
from kronpress.run.manifest import Manifest
from kronpress.step import Step

_PACKAGES = ("kronpress", "torch", "transformers")  # on whose versions results depend
_NOT_OF_THE_MODEL = {"_name_or_path", "transformers_version"}  # fields of a configuration
_CHANGED = {
    "data": "the {name} text of the run in {folder} has changed since it began; restore it, or start in a new folder",
    "model": (
        "the {name} of the model '{model}' changed since the run in {folder} began; restore what was there, "
        "or start in a new folder"
    ),
    "sources": "{name} has changed since the run in {folder} began; restore it, or start in a new folder",
    "environment": (
        "the run in {folder} began with {name} {then}, and this is {name} {now}, whose results may differ; "
        "install {name}=={then}, or start in a new folder"
    ),
}


def versions() -> dict[str, str]:
    """Return the versions of the packages on which results depend."""
    return {name: version(name) for name in _PACKAGES}


def environment(device: torch.device) -> dict[str, str]:
    """Return where the run takes place: versions, the device, threads and system."""
    return {
        **versions(),
        "python": platform.python_version(),
        "device": str(device),
        "matrix products": str(number_format(device)),
        "threads": str(torch.get_num_threads()),
        "system": f"{platform.system()} {platform.machine()}",
    }


def text_digests(train: Corpus, held_out: Corpus) -> dict[str, str]:
    """Return what tells the two texts of a run from others."""
    return {"training": train.fingerprint, "held-out": held_out.fingerprint}


def model_digests(model: PreTrainedModel, tokenizer: Any) -> dict[str, str]:
    """Return what tells a model and its tokenizer from others, wherever they lie."""
    configs: list[Any] = [model.config, model.generation_config] if model.can_generate() else [model.config]
    fields = [
        {key: value for key, value in config.to_dict().items() if key not in _NOT_OF_THE_MODEL} for config in configs
    ]
    settings = [
        tokenizer.special_tokens_map,
        tokenizer.chat_template,
        tokenizer.padding_side,
        tokenizer.truncation_side,
    ]
    content = tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else sorted(tokenizer.get_vocab().items())
    return {
        "weights": weights_digest(model),
        "config": _digest(fields),
        "tokenizer": _digest([type(tokenizer).__name__, content, settings]),
    }


def source_digests(steps: Sequence[Step], *, first: int = 0) -> dict[str, str]:
    """Return digests of what the steps from number `first` on read beside the recipe's model and text."""
    return {
        f"steps.{index}: {name}": digest
        for index, step in enumerate(steps)
        if index >= first
        for name, digest in step.sources().items()
    }


def require_unchanged(manifest: Manifest, now: Mapping[str, Mapping[str, str]], *, folder: Path, model: str) -> None:
    """Check that what the results depend on is what it was when the run in `folder` began.

    Args:
        now: by the keys of the manifest: digests of texts, of the model and of what steps read, and versions.
        model: what the recipe calls its model.

    Raises:
        KronpressError: what has changed, and the remedy.
    """
    for key, digests in now.items():
        before: Mapping[str, str] = getattr(manifest, key)
        for name, digest in digests.items():
            then = before.get(name)
            if then != digest:
                facts = {"name": name, "then": then, "now": digest, "model": model, "folder": folder}
                raise KronpressError(_CHANGED[key].format(**facts))


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
