"""The files with the weights of a model with structured layers.

They have names of their own: the classes of transformers look for `model.safetensors`, find none and stop, where they
would else fill the structured layers with random numbers.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file

from kronpress.checkpoint import files

INDEX = "kronpress.safetensors.index.json"
VARIANT = "kronpress"  # under which transformers writes, before `settle` renames
_WRITTEN = re.compile(rf"model\.{VARIANT}((-\d{{5}}-of-\d{{5}})?\.safetensors)")
_OLD = re.compile(r"(model|kronpress)(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")


def settle(folder: Path) -> None:
    """Give the weights that `save_pretrained` wrote their names, and list them in an index.

    What an earlier save left is removed, as transformers overwrites it.
    """
    names = sorted(path.name for path in folder.iterdir())
    written = [match for name in names if (match := _WRITTEN.fullmatch(name))]
    if not written:
        return
    for name in names:
        if _OLD.fullmatch(name) or name == f"model.safetensors.index.{VARIANT}.json":
            (folder / name).unlink()
    tensors: dict[str, str] = {}
    size = 0
    for match in written:
        path = (folder / match[0]).rename(folder / f"kronpress{match[1]}")
        size += path.stat().st_size
        with safe_open(path, framework="pt") as stream:
            tensors |= dict.fromkeys(list(stream.keys()), path.name)
    files.write_json(folder / INDEX, {"metadata": {"total_size": size}, "weight_map": dict(sorted(tensors.items()))})


def has_weights(folder: Path) -> bool:
    """Say whether a folder holds the weights of a model with structured layers."""
    return (folder / INDEX).is_file()


def names(folder: Path) -> set[str]:
    """Return the names of the tensors of a folder."""
    return set(files.read_json(folder / INDEX)["weight_map"])


def read(folder: Path) -> dict[str, Any]:
    """Return the tensors of a folder by name."""
    paths = sorted(set(files.read_json(folder / INDEX)["weight_map"].values()))
    return {key: tensor for name in paths for key, tensor in load_file(folder / name).items()}
