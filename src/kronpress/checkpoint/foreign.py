"""Folders and configs of what kronpress does not open: adapters, quantized weights, models in a folder below."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers.utils.hub import cached_file

from kronpress.checkpoint.config import PREFIX
from kronpress.checkpoint.contents import CONFIG, FLOATS, StoredTensor
from kronpress.checkpoint.probe import FILE as PROBE_FILE
from kronpress.errors import KronpressError

ADAPTER_CONFIG = "adapter_config.json"
_ADAPTERS = (ADAPTER_CONFIG, "adapter_model.safetensors", "adapter_model.bin")
_QUANTIZATIONS = ("quantization_config", "compression_config")
_QUANTIZATION_FILES = ("quantize_config.json", "quant_config.json", "hf_quant_config.json")
_WEIGHT_ENDINGS = (".weight", ".qweight", ".weight_packed", ".weight_quantized", "_blocks")
_MOST_LABELS = 100_000
_DEPTHS = ("num_hidden_layers", "n_layer", "n_layers")
_COUNTS = (
    *("num_attention_heads", "n_head", "n_heads", "num_key_value_heads", "head_dim", "hidden_size", "n_embd", "dim"),
    *("intermediate_size", "n_inner", "hidden_dim", "vocab_size", "max_position_embeddings", "n_positions"),
)


def require_no_adapter(folder: Path) -> None:
    """Check that no adapter lies in a folder.

    Raises:
        KronpressError: one does.
    """
    name = next((name for name in _ADAPTERS if os.path.lexists(folder / name)), None)
    if name is not None:
        raise _adapter_error(f"{folder} holds an adapter ({name})")


def require_no_hub_adapter(name: str) -> None:
    """Check the same of a model on a hub, as far as it can be reached."""
    options = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    if cached_file(name, ADAPTER_CONFIG, **options) is not None:
        raise _adapter_error(f"the model '{name}' comes with an adapter ({ADAPTER_CONFIG})")


def _adapter_error(found: str) -> KronpressError:
    return KronpressError(
        f"{found}, which would be left out; merge it first (peft: model.merge_and_unload()), save the result to "
        "another folder and name that one"
    )


def require_model(folder: Path) -> None:
    """Check that a folder has a config and weights in safetensors files.

    Raises:
        KronpressError: it has not; the message says where else a model lies.
    """
    if not (folder / CONFIG).exists():
        raise KronpressError(f"{folder} has no config.json, so it is not a model folder{_elsewhere(folder)}")
    if (folder / ".metadata").exists():
        raise KronpressError(
            f"{folder} holds a distributed checkpoint, which is a pickle; save it with save_pretrained first"
        )
    if not {path.name for path in folder.glob("*.safetensors")} - {PROBE_FILE}:
        raise KronpressError(
            f"{folder} holds no *.safetensors file; kronpress never unpickles .bin or .pt weights{_elsewhere(folder)}"
        )


def _elsewhere(folder: Path) -> str:
    """Name what a user may have meant: a folder below that holds a model, or a GGUF file."""
    below = sorted(
        path.parent for path in folder.glob(f"*/{CONFIG}") if path.is_file() and any(path.parent.glob("*.safetensors"))
    )
    meant = below or sorted(folder.glob("*.gguf"))
    return f"; did you mean {meant[0]}?" if meant else ""


def require_unquantized(config: Mapping[str, Any], *, place: str) -> None:
    """Check that a config names no quantization but ours; what one of ours says there is for the plug-in to check.

    Raises:
        KronpressError: it does; the message names the method.
    """
    if str(config.get("model_type", "")).startswith(PREFIX):
        return
    for key in _QUANTIZATIONS:
        value = config.get(key)
        if value is None:
            continue
        fields = value if isinstance(value, Mapping) else {}
        method = fields.get("quant_method") or ("bitsandbytes" if _is_bitsandbytes(fields) else "an unnamed method")
        if method != "kronpress":
            raise _quantized_error(place, str(method)[:40])


def _is_bitsandbytes(fields: Mapping[str, Any]) -> bool:
    return any(str(name).startswith(("load_in_", "bnb_")) for name in fields)


def require_float_weights(folder: Path, tensors: Mapping[str, StoredTensor]) -> None:
    """Check that no matrix is stored in integers or in eight bits, whatever the config says.

    Raises:
        KronpressError: one is.
    """
    name = next((name for name in _QUANTIZATION_FILES if (folder / name).exists()), None)
    if name is not None:
        raise _quantized_error(str(folder), name)
    for key, tensor in tensors.items():
        if key.endswith(_WEIGHT_ENDINGS) and tensor.number_format not in FLOATS:
            raise _quantized_error(str(folder), f"'{key}' is {tensor.number_format}")


def _quantized_error(place: str, method: str) -> KronpressError:
    return KronpressError(
        f"{place} is quantized ({method}), and kronpress needs unquantized weights; name the original model, "
        "or dequantize this one and save it"
    )


def require_possible_sizes(config: Mapping[str, Any], *, tensors: int, place: Path) -> None:
    """Check the sizes that a config's own lists are built from, before anything is built.

    Raises:
        KronpressError: more blocks than there are tensors, nothing of a kind, or more labels than any task has.
    """
    for key in _DEPTHS:
        value = config.get(key)
        if isinstance(value, int | float) and not 0 < value <= tensors:
            raise KronpressError(
                f"{place} calls for {key}: {str(value)[:20]} where the weights are {tensors} tensors; "
                "the files are not of one model: copy or download them again"
            )
    for key in _COUNTS:
        value = config.get(key)
        if isinstance(value, int | float) and not value >= 1:
            raise KronpressError(f"{place} calls for {key}: {value}, which must be at least 1; download it again")
    labels = config.get("num_labels")
    if isinstance(labels, int | float) and not 0 <= labels <= _MOST_LABELS:
        raise KronpressError(f"{place} calls for num_labels: {str(labels)[:20]}; at most {_MOST_LABELS} are read")
