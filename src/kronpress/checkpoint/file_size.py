"""What a safetensors file takes, from shapes alone."""

from __future__ import annotations

import json
from collections.abc import Mapping

from kronpress.layers import TensorFormat, TensorSpec

_NAMES = {"int64": "I64", "float64": "F64", "float32": "F32", "int32": "I32", "bfloat16": "BF16", "float16": "F16"}
_NAMES |= {"int16": "I16", "uint8": "U8"}  # in the order of safetensors, which writes wide numbers first


def file_size(tensors: Mapping[str, TensorSpec], *, model: TensorFormat) -> int:
    """Return the bytes of the file that safetensors writes for tensors, in a model that is stored in a format.

    That is 8 bytes, a header of JSON that is filled up to a multiple of 8 bytes, and the tensors.

    Args:
        tensors: each by its name, on grids or not.
        model: the number format of those that have none of their own.
    """
    parts = {key: part for name, tensor in tensors.items() for key, part in tensor.state(name).items()}
    formats = {key: _name_of(part, model) for key, part in parts.items()}
    widest = list(_NAMES.values()).index
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for key in sorted(parts, key=lambda key: (widest(formats[key]), key)):
        start, end = end, end + parts[key].bytes(model)
        header[key] = {"dtype": formats[key], "shape": list(parts[key].shape), "data_offsets": [start, end]}
    written = len(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode())
    return 8 + -(-written // 8) * 8 + end


def _name_of(tensor: TensorSpec, model: TensorFormat) -> str:
    assert isinstance(tensor.format, TensorFormat)
    return _NAMES[tensor.format.name if tensor.format.bits else model.name]
