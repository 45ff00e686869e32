"""Round a matrix as the reference code of GGUF does, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from kronpress.errors import KronpressError
from kronpress.export.gguf.types import gguf_type
from kronpress.layers import Coded

Numbers = NDArray[np.float32]


class _Rounded(NamedTuple):
    """Blocks as codes, with the scale and the shift of each before they are rounded to float16."""

    codes: Numbers
    scale: Numbers
    shift: Numbers | None = None


def round_as_gguf(weight: Float[Tensor, "rows columns"], name: str, *, place: str = "the matrix") -> Coded:
    """Return the codes and scales that GGUF's reference quantizer gives a matrix, in the terms of `GGUF_GRIDS[name]`.

    The scale is chosen in float32 and the codes are found with it; only then it is rounded to float16. `Grid.codes` on
    the rounded scale may give another code to a number that lies halfway.

    Args:
        weight: the matrix.
        name: of a type on a grid: q8_0, q4_0, q4_1, q2_0, q1_0, tq1_0 or tq2_0.
        place: what messages call the matrix.

    Raises:
        KronpressError: no such type, rows that its block does not divide, or numbers too large for a float16 scale.
    """
    kind = gguf_type(name)
    if kind.name not in _RULES:
        raise KronpressError(f"{name} writes each number by itself; choose one of {', '.join(_RULES)}")
    kind.require(weight.shape, place=place)
    blocks = weight.detach().to("cpu", torch.float32).reshape(-1, kind.block).numpy()
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        rounded = _RULES[kind.name](blocks)
    scales = (len(weight), -1, 1)
    scale = _stored(rounded.scale, place=place).view(scales)
    shift = None if rounded.shift is None else _stored(rounded.shift, place=place).view(scales)
    codes = torch.from_numpy(rounded.codes.astype(np.int32)).view(len(weight), -1, kind.block)
    return Coded(codes, scale, shift)


def _stored(scale: Numbers, *, place: str) -> Tensor:
    """Return scales as they are stored, in float32."""
    with np.errstate(over="ignore"):
        stored = torch.from_numpy(scale.astype(np.float16).astype(np.float32))
    if not stored.isfinite().all():
        raise KronpressError(
            f"{place} holds numbers that are not finite, or too large for a scale in float16; choose --type f32, or "
            "check the model with `kronpress verify`"
        )
    return stored


def _inverse(scale: Numbers) -> Numbers:
    """Return 1 / scale, and 0 where that is no number."""
    inverse = np.float32(1) / scale
    return np.where(np.isfinite(inverse), inverse, np.float32(0))


def _away_from_zero(numbers: Numbers) -> Numbers:
    """Round, a half away from zero, as C does."""
    size = np.abs(numbers)
    floor = np.floor(size)
    rounded: Numbers = np.copysign(floor + np.floor(2 * (size - floor)), numbers)
    return rounded


def _largest(blocks: Numbers) -> Numbers:
    largest: Numbers = np.abs(blocks).max(axis=-1, keepdims=True)
    return largest


def _q8_0(blocks: Numbers) -> _Rounded:
    scale = _largest(blocks) / np.float32(127)
    return _Rounded(_away_from_zero(blocks * _inverse(scale)) + 128, scale)


def _q4_0(blocks: Numbers) -> _Rounded:
    """Let the number of the largest absolute value be the level -8, so the scale may be negative."""
    place = np.abs(blocks).argmax(axis=-1, keepdims=True)
    scale = np.take_along_axis(blocks, place, axis=-1) / np.float32(-8)
    return _Rounded(np.trunc(blocks * _inverse(scale) + np.float32(8.5)).clip(0, 15), scale)


def _q4_1(blocks: Numbers) -> _Rounded:
    low, high = blocks.min(axis=-1, keepdims=True), blocks.max(axis=-1, keepdims=True)
    scale = (high - low) / np.float32(15)
    return _Rounded(np.trunc((blocks - low) * _inverse(scale) + np.float32(0.5)).clip(0, 15), scale, low)


def _q2_0(blocks: Numbers) -> _Rounded:
    """Scale by the largest absolute value: the level 2 is there for weights that were trained to lie on it."""
    scale = _largest(blocks)
    return _Rounded((_away_from_zero(blocks * _inverse(scale)) + 1).clip(0, 3), scale)


def _q1_0(blocks: Numbers) -> _Rounded:
    total: Numbers = np.abs(blocks).cumsum(axis=-1, dtype=np.float32)[
        :, -1:
    ]  # one after the other, as the reference adds
    positive: Numbers = (blocks >= 0).astype(np.float32)
    return _Rounded(positive, total / np.float32(blocks.shape[-1]))


def _ternary(blocks: Numbers) -> _Rounded:
    scale = _largest(blocks)
    return _Rounded(_away_from_zero(blocks * _inverse(scale)) + 1, scale)


_RULES: Mapping[str, Callable[[Numbers], _Rounded]] = {
    "q8_0": _q8_0,
    "q4_0": _q4_0,
    "q4_1": _q4_1,
    "q2_0": _q2_0,
    "q1_0": _q1_0,
    "tq1_0": _ternary,
    "tq2_0": _ternary,
}
