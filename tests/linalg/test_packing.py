from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kronpress.linalg import look_up, look_up_rows, pack, packed_size, unpack

BASES = (2, 3, 4, 8, 16, 256)


@given(base=st.sampled_from(BASES), count=st.integers(0, 50), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=80)
def test_codes_come_back(base: int, count: int, seed: int) -> None:
    codes = torch.randint(base, (count,), generator=torch.Generator().manual_seed(seed))
    packed = pack(codes, base=base)
    assert packed.dtype == torch.uint8
    assert len(packed) == packed_size(count, base=base)
    assert unpack(packed, base=base, count=count).tolist() == codes.tolist()
    values = torch.randn(base, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert torch.equal(look_up(packed, values, count=count), values[codes])


@pytest.mark.parametrize(
    ("base", "codes", "expected"),
    [
        (2, [1, 0, 1, 1, 0, 0, 0, 0, 1], [0b00001101, 1]),
        (3, [2, 1, 0, 0, 1, 2], [2 + 3 + 81, 2]),
        (4, [3, 0, 1, 2, 1], [0b10010011, 1]),
        (8, [7, 0, 1, 0, 0, 0, 0, 4], [0b01000111, 0, 0b10000000]),
        (16, [10, 3, 15], [0x3A, 0x0F]),
        (256, [200, 7], [200, 7]),
    ],
)
def test_the_first_code_is_lowest(base: int, codes: list[int], expected: list[int]) -> None:
    assert pack(torch.tensor(codes), base=base).tolist() == expected


def test_three_bits_take_three_bits() -> None:
    assert packed_size(8_000_000, base=8) == 3_000_000


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("width", [1, 5, 8, 13, 40])
def test_rows_are_those_of_all_codes(base: int, width: int) -> None:
    codes = torch.randint(base, (9, width), generator=torch.Generator().manual_seed(0))
    packed, values = pack(codes.flatten(), base=base), torch.arange(base) * 10.0
    for rows in ([8], [3, 3, 0, 8, 1], []):
        read = look_up_rows(packed, values, torch.tensor(rows, dtype=torch.int32), width=width)
        assert torch.equal(read, values[codes[rows]])
