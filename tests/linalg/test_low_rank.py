from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kronpress.errors import KronpressError
from kronpress.linalg import KroneckerShape, nearest_kronecker_sum, nearest_low_rank


@given(rows=st.integers(1, 10), columns=st.integers(1, 10), data=st.data(), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_the_error_is_that_of_eckart_and_young(rows: int, columns: int, data: st.DataObject, seed: int) -> None:
    rank = data.draw(st.integers(1, min(rows, columns)))
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found, sigma = nearest_low_rank(matrix, rank=rank), torch.linalg.svdvals(matrix)
    assert (matrix - found.to_dense()).norm().item() == pytest.approx(sigma[rank:].norm().item(), abs=1e-7)
    assert found.error == pytest.approx(sigma[rank:].norm().item(), abs=1e-7)
    assert (tuple(found.left.shape), tuple(found.right.shape)) == ((rows, rank), (rank, columns))


def test_it_is_a_kronecker_sum_of_columns_and_rows() -> None:
    matrix = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    as_sum = nearest_kronecker_sum(matrix, shape=KroneckerShape(m1=6, n1=1, m2=1, n2=5), terms=2)
    torch.testing.assert_close(as_sum.to_dense(), nearest_low_rank(matrix, rank=2).to_dense())


@pytest.mark.parametrize("rank", [0, 4])
def test_an_impossible_rank_is_refused(rank: int) -> None:
    with pytest.raises(KronpressError, match=re.escape(f"rank is {rank}; a (3, 5) matrix takes 1 to 3")):
        nearest_low_rank(torch.ones(3, 5), rank=rank)
