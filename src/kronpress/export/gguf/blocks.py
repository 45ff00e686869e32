"""Codes and scales as the bytes of GGUF's blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kronpress.export.gguf.types import GgufType
from kronpress.layers import Coded

Bytes = NDArray[np.uint8]

_HEADERS_FIRST = ("q8_0", "q4_0", "q4_1", "q2_0", "q1_0")
_DIGITS = np.array([81, 27, 9, 3, 1], dtype=np.uint16)


def packed_blocks(coded: Coded, kind: GgufType) -> Bytes:
    """Return the bytes of a matrix on the grid of a type, (rows, bytes of a row).

    A block is the scale in float16, then the shift where there is one, then the codes; in `tq1_0` and `tq2_0` the scale
    comes last. All numbers are little-endian.

    Args:
        coded: in groups of the type's block.
        kind: a type with a grid.
    """
    rows = len(coded.codes)
    codes: Bytes = coded.codes.reshape(-1, kind.block).cpu().numpy().astype(np.uint8)
    header = _halves(coded.scale)
    if coded.shift is not None:
        header = np.concatenate([header, _halves(coded.shift)], axis=1)
    parts = [header, _LAYOUTS[kind.name](codes)]
    blocks = np.concatenate(parts if kind.name in _HEADERS_FIRST else parts[::-1], axis=1)
    assert blocks.shape[1] == kind.block_bytes
    return blocks.reshape(rows, -1)


def _halves(scale: Tensor) -> Bytes:
    numbers: Bytes = scale.reshape(-1, 1).cpu().numpy().astype("<f2").view(np.uint8)
    return numbers


def _bytes(codes: Bytes) -> Bytes:
    """A signed byte for each level."""
    return codes ^ np.uint8(128)  # two's complement of code - 128


def _nibbles(codes: Bytes) -> Bytes:
    """Byte i holds number i in its low half, number i + 16 in its high one."""
    low, high = np.split(codes, 2, axis=1)
    joined: Bytes = low | high << np.uint8(4)
    return joined


def _crumbs(codes: Bytes) -> Bytes:
    """Byte i holds the numbers 4i to 4i + 3, low bits first."""
    return _side_by_side(codes.reshape(len(codes), -1, 4))


def _bits(codes: Bytes) -> Bytes:
    """Byte i holds the numbers 8i to 8i + 7, low bits first."""
    return np.packbits(codes, axis=1, bitorder="little")


def _strided_crumbs(codes: Bytes) -> Bytes:
    """Byte i of each half holds the numbers i, i + 32, i + 64 and i + 96 of that half, low bits first."""
    halves = codes.reshape(len(codes), 2, 4, 32).swapaxes(2, 3)
    return _side_by_side(halves).reshape(len(codes), -1)


def _side_by_side(crumbs: Bytes) -> Bytes:
    first, second, third, fourth = np.moveaxis(crumbs, -1, 0)
    joined: Bytes = first | second << 2 | third << 4 | fourth << 6
    return joined


def _trits(codes: Bytes) -> Bytes:
    """Five digits of base 3 a byte, 32 apart in the first 160 numbers and 16 apart in the next 80; the last 16 by four.

    The first digit is the highest. The number, a fraction of 243, is written as one of 256, rounded up, so that a
    multiplication by 3 brings a digit to the top of the byte.
    """
    parts = [(codes[:, :160], 5), (codes[:, 160:240], 5), (codes[:, 240:], 4)]
    numbers = [
        np.tensordot(_DIGITS[:digits], part.reshape(len(codes), digits, -1).astype(np.uint16), axes=(0, 1))
        for part, digits in parts
    ]
    fractions = (np.concatenate(numbers, axis=1) * 256 + 242) // 243
    return fractions.astype(np.uint8)


_LAYOUTS: Mapping[str, Callable[[Bytes], Bytes]] = {
    "q8_0": _bytes,
    "q4_0": _nibbles,
    "q4_1": _nibbles,
    "q2_0": _crumbs,
    "q1_0": _bits,
    "tq1_0": _trits,
    "tq2_0": _strided_crumbs,
}
