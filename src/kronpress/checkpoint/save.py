"""Save a model so that it opens again, provably the same."""

from __future__ import annotations

import os
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel

from kronpress.checkpoint import files
from kronpress.checkpoint.config import FORMAT_VERSION
from kronpress.checkpoint.contents import MANIFEST, deciding_files
from kronpress.checkpoint.plugin import adopt, structured_layers
from kronpress.checkpoint.probe import FILE as PROBE_FILE
from kronpress.checkpoint.probe import take_probe
from kronpress.checkpoint.ties import settle_ties
from kronpress.errors import KronpressError

_MARGIN_BYTES = 2**24


def save(model: PreTrainedModel, folder: str | Path, *, tokenizer: Any = None, card: str | None = None) -> Path:
    """Write model, tokenizer, probe and hashes into `folder`, which appears complete or not at all.

    A model with structured layers becomes a kronpress checkpoint; any other stays a plain one.

    Args:
        model: any supported model.
        folder: must be absent or empty.
        tokenizer: saved beside the weights.
        card: the text of README.md.

    Returns:
        The folder.

    Raises:
        KronpressError: the folder holds something, or the disk has too little space.
    """
    folder = Path(folder)
    files.require_empty(folder)
    needed = sum(p.numel() * p.element_size() for p in model.parameters()) + _MARGIN_BYTES
    files.require_space(folder, needed=needed)
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _fill(staging, model, tokenizer, card)
        if folder.exists():
            folder.rmdir()
        staging.chmod(0o755)
        for path in staging.iterdir():  # safetensors makes files that only their owner may read
            path.chmod(0o644)
        os.replace(staging, folder)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise KronpressError(f"cannot write the checkpoint {folder}: {reason}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder


def _fill(folder: Path, model: PreTrainedModel, tokenizer: Any, card: str | None) -> None:
    settle_ties(model)
    adopt(model)
    model.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    take_probe(model).save(folder)
    if card is not None:
        files.write_text(folder / "README.md", card)
    write_manifest(folder, plain=not structured_layers(model))


def write_manifest(folder: Path, *, plain: bool) -> None:
    """Record the hashes of the files that decide what the model answers."""
    paths = {name: folder / name for name in deciding_files(folder)}
    files.write_json(
        folder / MANIFEST,
        {
            "format_version": FORMAT_VERSION,
            "kronpress": version("kronpress"),
            "transformers": version("transformers"),
            "torch": str(torch.__version__),
            "plain": plain,
            "probe": PROBE_FILE,
            "files": {
                name: {"sha256": files.sha256(path), "bytes": path.stat().st_size} for name, path in paths.items()
            },
        },
    )
