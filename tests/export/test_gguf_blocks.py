"""Rounding and packing equal the `gguf` library's, and what the layouts describe."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch

from kronpress.errors import KronpressError
from kronpress.export.gguf import TYPES, gguf_type, packed_blocks, round_as_gguf
from kronpress.layers import GGUF_GRIDS, Coded
from tests.export.gguf_files import dequantized

ON_GRIDS = list(GGUF_GRIDS)


def matrix() -> torch.Tensor:
    """Rows of all sizes, with a block of zeros, one of equal numbers and one whose numbers lie halfway."""
    weight = torch.randn(24, 512, generator=torch.Generator().manual_seed(0)) * torch.logspace(-4, 2, 24)[:, None]
    weight[3], weight[5, :256] = 0, 1.5
    weight[7] = (torch.arange(512) % 8 - 3.5) / 2
    return weight


@pytest.mark.parametrize("name", ["q8_0", "q4_0", "q4_1", "tq1_0", "tq2_0"])
def test_bytes_are_those_of_the_library(name: str) -> None:
    weight = matrix()
    packed = packed_blocks(round_as_gguf(weight, name), TYPES[name])
    kind = gguf.GGMLQuantizationType[name.upper()]
    assert TYPES[name].number == kind
    assert (TYPES[name].block, TYPES[name].block_bytes) == gguf.GGML_QUANT_SIZES[kind]
    np.testing.assert_array_equal(packed, gguf.quants.quantize(weight.numpy(), kind))
    np.testing.assert_array_equal(dequantized(packed, name), gguf.dequantize(packed, kind))


def test_one_bit_is_the_sign_and_the_mean_size() -> None:
    weight = matrix()
    packed = packed_blocks(round_as_gguf(weight, "q1_0"), TYPES["q1_0"])
    assert packed.shape == (24, 4 * 18)
    for row, stored in zip(weight.numpy(), packed, strict=True):
        for block, written in zip(row.reshape(4, 128), stored.reshape(4, 18), strict=True):
            total = np.float32(0)
            for number in block:
                total += abs(number)
            bits = [sum((block[8 * byte + bit] >= 0) << bit for bit in range(8)) for byte in range(16)]
            np.testing.assert_array_equal(written[:2], np.array([total / 128], "<f2").view(np.uint8))
            np.testing.assert_array_equal(written[2:], bits)


def test_two_bits_scale_by_the_largest_size() -> None:
    weight = matrix()
    packed = packed_blocks(round_as_gguf(weight, "q2_0"), TYPES["q2_0"])
    assert packed.shape == (24, 8 * 18)
    for row, stored in zip(weight.numpy(), packed, strict=True):
        for block, written in zip(row.reshape(8, 64), stored.reshape(8, 18), strict=True):
            largest = np.abs(block).max()
            inverse = np.float32(1) / largest if largest else np.float32(0)
            codes = [1 if abs(number * inverse) < 0.5 else 2 if number > 0 else 0 for number in block]
            joined = [sum(codes[4 * byte + place] << 2 * place for place in range(4)) for byte in range(16)]
            np.testing.assert_array_equal(written[:2], np.array([largest], "<f2").view(np.uint8))
            np.testing.assert_array_equal(written[2:], joined)


@pytest.mark.parametrize("name", ON_GRIDS)
def test_any_codes_are_read_as_the_grid_means_them(name: str) -> None:
    kind, grid, random = TYPES[name], GGUF_GRIDS[name], torch.Generator().manual_seed(1)
    codes = torch.randint(grid.base, (6, 512 // kind.block, kind.block), generator=random)
    scale = grid.rounded(torch.randn(6, 512 // kind.block, 1, generator=random))
    coded = Coded(codes, scale, grid.rounded(torch.randn(scale.shape, generator=random)) if grid.shift else None)
    packed = packed_blocks(coded, kind)
    assert packed.nbytes == kind.bytes((6, 512))
    assert kind.bits == 8 * packed.nbytes / (6 * 512)
    np.testing.assert_array_equal(dequantized(packed, name), grid.values(*coded).view(6, 512).numpy())


@pytest.mark.parametrize("name", ON_GRIDS)
def test_what_was_rounded_lies_on_the_grid_and_near(name: str) -> None:
    coded, grid = round_as_gguf(matrix(), name), GGUF_GRIDS[name]
    assert (coded.shift is None) is not grid.shift
    assert 0 <= int(coded.codes.min()) <= int(coded.codes.max()) < grid.base
    assert torch.equal(grid.rounded(coded.scale), coded.scale)
    error = (grid.values(*coded).view(24, 512) - matrix()).norm(dim=1) / matrix().norm(dim=1).clamp_min(1e-9)
    assert float(error.max()) < {"q8_0": 0.01, "q4_0": 0.12, "q4_1": 0.12}.get(name, 1.0)
    again = round_as_gguf(grid.values(*coded).view(24, 512), name) if name != "q4_1" else coded
    if name != "q4_0":  # whose scale changes its sign where both ends are as far
        torch.testing.assert_close(grid.values(*again), grid.values(*coded), rtol=2**-10, atol=0)


def test_numbers_without_a_scale_are_refused() -> None:
    weight = matrix()
    weight[2, 3] = float("nan")
    for broken in (weight, matrix() * 1e9):
        with pytest.raises(KronpressError, match="too large for a scale in float16"):
            round_as_gguf(broken, "q8_0")


def test_rows_that_no_block_divides_are_refused_with_an_offer() -> None:
    with pytest.raises(KronpressError, match=r"128 numbers together.* the table, 576 long; .* q4_1, q4_0, q2_0$"):
        round_as_gguf(torch.zeros(2, 576), "q1_0", place="the table")
    assert round_as_gguf(torch.zeros(2, 576), "q2_0").codes.shape == (2, 9, 64)


def test_other_names_are_refused() -> None:
    with pytest.raises(KronpressError, match="did you mean 'q4_0'"):
        gguf_type("q4_00")
    with pytest.raises(KronpressError, match="writes each number by itself"):
        round_as_gguf(matrix(), "bf16")
