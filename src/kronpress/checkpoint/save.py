"""Save a model so that it opens again, provably the same."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from kronpress.checkpoint import files, weights
from kronpress.checkpoint.config import FORMAT_VERSION
from kronpress.checkpoint.contents import MANIFEST, deciding_files
from kronpress.checkpoint.plugin import adopt
from kronpress.checkpoint.probe import FILE as PROBE_FILE
from kronpress.checkpoint.probe import take_probe
from kronpress.checkpoint.ties import settle_ties
from kronpress.errors import KronpressError
from kronpress.layers import packed, structured_layers

LARGE_SHARD = "50GB"  # as transformers has it


def save(
    model: PreTrainedModel,
    folder: str | Path,
    *,
    tokenizer: Any = None,
    card: str | None = None,
    shard: str = LARGE_SHARD,
) -> Path:
    """Write model, tokenizer, probe and hashes into `folder`, which appears complete or not at all.

    A model with structured layers becomes a kronpress checkpoint; any other stays a plain one.

    Args:
        model: any supported model.
        folder: must be absent or empty.
        tokenizer: saved beside the weights.
        card: the text of README.md.
        shard: the most that a file of weights holds.

    Returns:
        The folder.

    Raises:
        KronpressError: the folder holds something or cannot be made, another process writes it, or the disk has too
            little space.
    """
    folder = Path(folder)
    with files.staged(folder, needed=bytes_of(model)) as staging:
        write_checkpoint(staging, model, tokenizer=tokenizer, card=card, shard=shard)
    return folder


def bytes_of(model: PreTrainedModel, *, dtype: torch.dtype | None = None) -> int:
    """Return what parameters, codes and orders take, in memory as on disk; parameters in `dtype`, by default as is."""
    stored = {id(tensor): tensor for tensor in model.state_dict(keep_vars=True).values()}.values()
    return sum(
        tensor.numel() * dtype.itemsize if dtype and isinstance(tensor, nn.Parameter) else tensor.nbytes
        for tensor in stored
    )


def write_checkpoint(
    folder: Path,
    model: PreTrainedModel,
    *,
    tokenizer: Any = None,
    card: str | None = None,
    shard: str = LARGE_SHARD,
) -> None:
    """Write what `save` writes into a folder that is there."""
    settle_ties(model)
    _require_no_adapters(model)
    adopt(model)
    model.save_pretrained(folder, max_shard_size=shard)
    _require_all_written(folder, model)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    take_probe(model).save(folder)
    if card is not None:
        files.write_text(folder / "README.md", card)
    write_manifest(folder, plain=not structured_layers(model))


def _require_no_adapters(model: PreTrainedModel) -> None:
    tuners: Any = sys.modules.get("peft.tuners.tuners_utils")
    if tuners is not None and any(isinstance(module, tuners.BaseTunerLayer) for module in model.modules()):
        raise KronpressError(
            "the model holds adapters of peft, which no checkpoint of it can; save the adapters with the "
            "`save_pretrained` of peft's model, and the model after its `unload()`"
        )


def _require_all_written(folder: Path, model: PreTrainedModel) -> None:
    """Check that the files hold all that is in structured layers, what is shared at least once.

    Raises:
        KronpressError: something is missing, which opening would have to make up.
    """
    if not weights.has_weights(folder):
        return
    inside = tuple(f"{path}." for path in structured_layers(model))
    written = weights.names(folder)
    with packed(model):
        stored = {key: id(value) for key, value in model.state_dict(keep_vars=True).items()}
    there = {tensor for key, tensor in stored.items() if key in written}
    lost = [key for key, tensor in stored.items() if key.startswith(inside) and tensor not in there]
    if lost:
        raise KronpressError(f"saving left out '{lost[0]}' and {len(lost) - 1} more; nothing was kept of this save")


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
