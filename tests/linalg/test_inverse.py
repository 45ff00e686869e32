from __future__ import annotations

import pytest
import torch

from kronpress.linalg.inverse import inverse_in_place


@pytest.mark.parametrize("size", [1, 5, 256, 300, 700])
def test_it_is_the_inverse_in_the_memory_of_the_factor(size: int) -> None:
    inputs = torch.randn(size + 20, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrix = inputs.T @ inputs
    factor = torch.linalg.cholesky(matrix)
    expected, place = torch.linalg.inv(matrix), factor.data_ptr()
    inverse = inverse_in_place(factor)
    torch.testing.assert_close(inverse, expected, rtol=1e-9, atol=1e-12)
    assert inverse.data_ptr() == place
