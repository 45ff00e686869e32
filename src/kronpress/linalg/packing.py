"""Small whole numbers written side by side into bytes, and read again."""

from __future__ import annotations

import math

import torch
from jaxtyping import Integer, UInt8
from torch import Tensor
from torch.nn import functional as F

TRITS_PER_BYTE = 5  # 3⁵ = 243 of the 256 values of a byte


def packed_size(count: int, *, base: int) -> int:
    """Return the bytes that `count` codes below `base` take.

    >>> packed_size(10, base=2), packed_size(10, base=3), packed_size(10, base=8), packed_size(10, base=16)
    (2, 2, 4, 5)
    """
    return math.ceil(count / TRITS_PER_BYTE) if base == 3 else math.ceil(count * bits_of(base) / 8)


def bits_of(base: int) -> int:
    """Return the bits of a code below `base`, where that is a power of two."""
    return (base - 1).bit_length()


def pack(codes: Integer[Tensor, " count"], *, base: int) -> UInt8[Tensor, " bytes"]:
    """Write codes from 0 to `base` - 1 into bytes; what is left of the last one is 0.

    Codes of 1, 2, 4 and 8 bits go low bits first, so that the bytes are those of the int32 words of
    compressed-tensors' `pack_to_int32`, and of ONNX Runtime's `MatMulNBits`. Eight codes of 3 bits take three bytes,
    low bits first. Five codes of base 3 take one byte, as the digits of a number, the first code lowest.
    """
    count, size = _run(base)
    rows = F.pad(codes.to(torch.int32), (0, -len(codes) % count)).view(-1, count)
    numbers = (rows * _places(count, base=base, device=codes.device)).sum(dim=1, dtype=torch.int32)
    parts = [(numbers >> (8 * index)) & 255 for index in range(size)]
    return torch.stack(parts, dim=1).flatten()[: packed_size(len(codes), base=base)].to(torch.uint8)


def unpack(packed: UInt8[Tensor, " bytes"], *, base: int, count: int) -> UInt8[Tensor, " count"]:
    """Return the first `count` codes that `pack` wrote."""
    return look_up(packed, torch.arange(base, dtype=torch.uint8, device=packed.device), count=count)


def look_up(packed: UInt8[Tensor, " bytes"], values: Tensor, *, count: int) -> Tensor:
    """Return `values[code]` for the first `count` codes: one look-up a byte, where codes do not cross bytes."""
    base = len(values)
    per_run, size = _run(base)
    places = _places(per_run, base=base, device=packed.device)
    if size == 1:
        codes = torch.arange(256, dtype=torch.int32, device=packed.device)[:, None] // places % base
        return values[codes][packed.int()].flatten()[:count]
    low, middle, high = F.pad(packed, (0, -len(packed) % size)).view(-1, size).int().unbind(dim=1)
    numbers = low | middle << 8 | high << 16
    return values[numbers[:, None] // places % base].flatten()[:count]


def _run(base: int) -> tuple[int, int]:
    """Return how many codes stand together, and in how many bytes."""
    if base == 3:
        return TRITS_PER_BYTE, 1
    return (8, 3) if base == 8 else (8 // bits_of(base), 1)


def _places(count: int, *, base: int, device: torch.device) -> Integer[Tensor, " count"]:
    return torch.tensor([base**index for index in range(count)], dtype=torch.int32, device=device)
