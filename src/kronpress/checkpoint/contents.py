"""What a model folder holds: which files decide the outputs, and the names and shapes of the stored tensors."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open

from kronpress.checkpoint import files
from kronpress.checkpoint.probe import FILE as PROBE_FILE
from kronpress.errors import KronpressError

CONFIG = "config.json"
MANIFEST = "kronpress.json"
FLOATS = ("F16", "BF16", "F32", "F64")
_WEIGHTS, _INDEX_ENDING = "model.safetensors", ".safetensors.index.json"
_TEMPLATES = "additional_chat_templates"
_DECIDING = (
    "*.safetensors",
    f"*{_INDEX_ENDING}",
    "pytorch_model*",
    "adapter_*",
    CONFIG,
    "generation_config.json",
    "tokenizer*",
    "vocab.*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "*.model",
    "*.jinja",
    f"{_TEMPLATES}/*",
)
_LARGEST_JSON = 2**26
_LARGEST_VOCABULARY = 2**29
_VOCABULARIES = ("tokenizer.json", "vocab.json")
_LONGEST_NAME = 255  # bytes, on the common file systems
_OUTSIDE = re.compile(r"[/\\:\0]|^\.*$")


class StoredTensor(NamedTuple):
    """A tensor as the header of its file describes it."""

    shape: tuple[int, ...]
    number_format: str


def deciding_files(folder: Path) -> list[str]:
    """Return the names of the files that decide a model's outputs: weights, configs, tokenizer and probe."""
    names = os.listdir(folder)
    if (folder / _TEMPLATES).is_dir():
        names += [f"{_TEMPLATES}/{name}" for name in os.listdir(folder / _TEMPLATES)]
    return sorted(name for name in names if any(fnmatchcase(name, pattern) for pattern in _DECIDING))


def require_inside(name: object, *, place: Path) -> str:
    """Return the name of a file that `place` lists.

    Raises:
        KronpressError: it is no plain name, so that it could lead out of the folder.
    """
    plain = isinstance(name, str) and not _OUTSIDE.search(name.removeprefix(f"{_TEMPLATES}/"))
    if not plain or len(str(name).encode("utf-8", "replace")) > _LONGEST_NAME:
        raise KronpressError(
            f"{place} names the file {repr(name)[:80]}, which is not a plain name of a file in this folder; "
            "nothing outside of the folder is read: copy or download it again"
        )
    return str(name)


def require_one_folder(paths: Iterable[str | Path]) -> None:
    """Check that the weights files that transformers is about to read lie side by side.

    Raises:
        KronpressError: a shard index led elsewhere.
    """
    folders = sorted({str(Path(path).parent) for path in paths})
    if len(folders) > 1 or any("/../" in f"{folder.lstrip('./')}/" for folder in folders):
        raise KronpressError(
            f"a shard index names files in {' and '.join(folders)[-160:]}; nothing outside of a model's own folder is "
            "read: copy or download it again"
        )


def require_regular(folder: Path) -> None:
    """Check that what is opened in `folder` are regular files, or links to such, and no text file is enormous.

    Raises:
        KronpressError: one is a folder, a pipe or a device, or larger than any of its kind.
    """
    names = [*deciding_files(folder), *(name for name in os.listdir(folder) if name == MANIFEST)]
    for path in (folder / name for name in names):
        if not path.is_file():
            raise KronpressError(f"{path} is not a regular file (nor a link to one); remove it or copy it again")
        limit = _LARGEST_VOCABULARY if path.name in _VOCABULARIES else _LARGEST_JSON
        if path.suffix == ".json" and path.stat().st_size > limit:
            raise KronpressError(
                f"{path} has {path.stat().st_size:,} bytes, more than the {limit:,} that are read of such a file; "
                "it is not that of a model: copy or download it again"
            )


def read_config(folder: Path) -> dict[str, Any]:
    """Read config.json.

    Raises:
        KronpressError: it is not a JSON object.
    """
    return files.read_object(folder / CONFIG)


def read_tensors(folder: Path, names: Iterable[str] | None = None) -> dict[str, StoredTensor]:
    """Read the headers of the weights files `names` of a folder, by default of all it holds.

    Raises:
        KronpressError: a file is damaged, or an index names files elsewhere.
    """
    if names is None:
        held = deciding_files(folder)
        for name in held:
            if name.endswith(_INDEX_ENDING):
                _shards(folder / name)
        names = [name for name in held if name.endswith(".safetensors") and name != PROBE_FILE]
    return {key: tensor for name in names for key, tensor in _read_header(folder / name)}


def weight_files(folder: Path, *, named: str | None) -> list[str]:
    """Return the weights files that transformers reads; `named` is what a config says under `transformers_weights`.

    Raises:
        KronpressError: there is none, or an index names files that are not there.
    """
    index = f"model{_INDEX_ENDING}"
    chosen = next((name for name in (_WEIGHTS, index) if (folder / name).exists()), None) if named is None else named
    if chosen is None:
        raise KronpressError(f"{folder} has neither {_WEIGHTS} nor {index}; rename its weights file to {_WEIGHTS}")
    chosen = require_inside(chosen, place=folder / CONFIG)
    names = _shards(folder / chosen) if chosen.endswith(_INDEX_ENDING) else [chosen]
    for name in names:
        if not (folder / name).is_file():
            raise KronpressError(f"{folder / name} is missing; copy or download it again")
    return names


def _shards(index: Path) -> list[str]:
    shards = files.read_object(index).get("weight_map")
    if not isinstance(shards, Mapping) or not shards:
        raise KronpressError(f"{index} does not say which file holds which weight; copy or download it again")
    return sorted({require_inside(name, place=index) for name in shards.values()})


def _read_header(path: Path) -> Iterator[tuple[str, StoredTensor]]:
    try:
        with safe_open(path, framework="pt") as stream:
            for name in list(stream.keys()):
                part = stream.get_slice(name)
                yield name, StoredTensor(tuple(part.get_shape()), str(part.get_dtype()))
    except (SafetensorError, OSError) as error:
        raise KronpressError(f"{path} is damaged or cut short ({error}); copy or download it again") from error
