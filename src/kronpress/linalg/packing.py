"""Small whole numbers written side by side into bytes, and read again."""

from __future__ import annotations

import math

import torch
from jaxtyping import Integer, Shaped, UInt8
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
    """Return `values[code]` for the first `count` codes: a look-up a byte, or every 12 bits where codes cross bytes."""
    base = len(values)
    per_run, size = _run(base)
    numbers, kinds, together = (packed.int(), 256, per_run) if size == 1 else (_halves(packed), 4096, per_run // 2)
    kind = torch.arange(kinds, dtype=torch.int32, device=packed.device)
    codes = kind[:, None] // _places(together, base=base, device=packed.device) % base
    return values[codes].index_select(0, numbers).flatten()[:count]


def look_up_rows(
    packed: UInt8[Tensor, " bytes"], values: Tensor, rows: Integer[Tensor, " some"], *, width: int
) -> Shaped[Tensor, "some width"]:
    """Return `values[code]` for the codes of some rows, of `width` codes each; only their bytes are read."""
    per_run, size = _run(len(values))
    starts, runs = rows.long() * width, width // per_run + (2 if width % per_run else 0)
    places = (starts // per_run * size)[:, None] + torch.arange(runs * size, device=rows.device)
    read = packed[places.clamp(max=len(packed) - 1)]  # what would lie beyond the end is of no row
    found = look_up(read.flatten(), values, count=len(rows) * runs * per_run).view(len(rows), runs * per_run)
    if width % per_run == 0:
        return found
    return found.gather(1, (starts % per_run)[:, None] + torch.arange(width, device=rows.device))


def _halves(packed: UInt8[Tensor, " bytes"]) -> Integer[Tensor, " halves"]:
    """Return runs of three bytes as two numbers of 12 bits each."""
    low, middle, high = F.pad(packed, (0, -len(packed) % 3)).view(-1, 3).int().unbind(dim=1)
    return torch.stack([low | (middle & 15) << 8, middle >> 4 | high << 4], dim=1).flatten()


def _run(base: int) -> tuple[int, int]:
    """Return how many codes stand together, and in how many bytes."""
    if base == 3:
        return TRITS_PER_BYTE, 1
    return (8, 3) if base == 8 else (8 // bits_of(base), 1)


def _places(count: int, *, base: int, device: torch.device) -> Integer[Tensor, " count"]:
    return torch.tensor([base**index for index in range(count)], dtype=torch.int32, device=device)
