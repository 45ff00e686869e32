from __future__ import annotations

import re
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kronpress.errors import KronpressError
from kronpress.linalg import KroneckerShape, KroneckerSum, expand, nearest_kronecker_sum, rearrange

SIZES = st.integers(1, 5)
SHAPES = st.builds(KroneckerShape, m1=SIZES, n1=SIZES, m2=SIZES, n2=SIZES)


def random(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def sum_of_kron(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return sum(torch.kron(a, b) for a, b in zip(left, right, strict=True))


@given(shape=SHAPES, terms=st.integers(1, 4), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_expand_sums_torch_kron(shape: KroneckerShape, terms: int, seed: int) -> None:
    left, right = random(terms, shape.m1, shape.n1, seed=seed), random(terms, shape.m2, shape.n2, seed=seed + 1)
    torch.testing.assert_close(expand(left, right), sum_of_kron(left, right))
    value = KroneckerSum(left, right)
    assert (value.shape, value.terms, tuple(value.to_dense().shape)) == (shape, terms, shape.matrix)


@given(shape=SHAPES, seed=st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_a_product_rearranges_to_an_outer_product_of_equal_norm(shape: KroneckerShape, seed: int) -> None:
    left, right = random(shape.m1, shape.n1, seed=seed), random(shape.m2, shape.n2, seed=seed + 1)
    matrix = torch.kron(left, right)
    rearranged = rearrange(matrix, shape=shape)
    torch.testing.assert_close(rearranged, left.flatten().outer(right.flatten()))
    torch.testing.assert_close(rearranged.norm(), matrix.norm())


@given(shape=SHAPES, seed=st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_all_terms_are_exact(shape: KroneckerShape, seed: int) -> None:
    matrix = random(*shape.matrix, seed=seed)
    found = nearest_kronecker_sum(matrix, shape=shape, terms=shape.max_terms)
    torch.testing.assert_close(found.to_dense(), matrix, atol=1e-12, rtol=0)
    assert found.error == 0.0


@given(shape=SHAPES, data=st.data(), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_the_error_is_the_tail_of_the_singular_values(shape: KroneckerShape, data: st.DataObject, seed: int) -> None:
    terms = data.draw(st.integers(1, shape.max_terms))
    matrix = random(*shape.matrix, seed=seed)
    found = nearest_kronecker_sum(matrix, shape=shape, terms=terms)
    tail = torch.linalg.svdvals(rearrange(matrix, shape=shape))[terms:].norm().item()
    norm = matrix.norm().item()
    assert found.error == pytest.approx(tail, abs=1e-7 * norm)
    assert (matrix - found.to_dense()).norm().item() == pytest.approx(tail, abs=1e-7 * norm)


@given(shape=SHAPES, seed=st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_a_product_is_found_again(shape: KroneckerShape, seed: int) -> None:
    matrix = torch.kron(random(shape.m1, shape.n1, seed=seed), random(shape.m2, shape.n2, seed=seed + 1))
    found = nearest_kronecker_sum(matrix, shape=shape)
    torch.testing.assert_close(found.to_dense(), matrix, atol=1e-10, rtol=1e-10)
    assert found.error <= 1e-7 * matrix.norm().item()


def test_relative_squared_error_is_one_minus_rho_squared() -> None:
    matrix, shape = random(12, 20, seed=3), KroneckerShape(m1=4, n1=10, m2=3, n2=2)
    found = nearest_kronecker_sum(matrix, shape=shape, terms=2)
    rho = (found.to_dense().norm() / matrix.norm()).item()
    assert (found.error / matrix.norm().item()) ** 2 == pytest.approx(1 - rho**2, rel=1e-9)


def test_the_singular_value_is_shared_evenly() -> None:
    found = nearest_kronecker_sum(random(12, 20, seed=3), shape=KroneckerShape(m1=4, n1=10, m2=3, n2=2), terms=3)
    torch.testing.assert_close(found.left.flatten(1).norm(dim=1), found.right.flatten(1).norm(dim=1))
    gram = found.left.flatten(1) @ found.left.flatten(1).T  # the terms are orthogonal, strongest first
    torch.testing.assert_close(gram, gram.diagonal().diag(), atol=1e-10, rtol=0)
    assert torch.all(gram.diagonal()[:-1] >= gram.diagonal()[1:])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_number_format_is_kept(dtype: torch.dtype) -> None:
    matrix, shape = random(8, 6, seed=1, dtype=dtype), KroneckerShape(m1=4, n1=3, m2=2, n2=2)
    found = nearest_kronecker_sum(matrix, shape=shape, terms=4)
    assert found.left.dtype == found.right.dtype == dtype
    precision = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2e-2, torch.bfloat16: 1e-1}[dtype]
    torch.testing.assert_close(found.to_dense().double(), matrix.double(), atol=precision, rtol=0)


@pytest.mark.parametrize("terms", [1, 3])
def test_a_zero_matrix_has_zero_factors(terms: int) -> None:
    found = nearest_kronecker_sum(torch.zeros(6, 6), shape=KroneckerShape(m1=3, n1=3, m2=2, n2=2), terms=terms)
    assert torch.equal(found.to_dense(), torch.zeros(6, 6))
    assert found.error == 0.0


def test_a_transposed_view_gives_what_its_copy_gives() -> None:
    stored, shape = random(20, 12, seed=5), KroneckerShape(m1=4, n1=10, m2=3, n2=2)
    view = nearest_kronecker_sum(stored.T, shape=shape)
    copy = nearest_kronecker_sum(stored.T.contiguous(), shape=shape)
    torch.testing.assert_close(view.to_dense(), copy.to_dense())


def test_a_wrong_shape_and_too_many_terms_are_refused() -> None:
    shape = KroneckerShape(m1=2, n1=3, m2=2, n2=1)
    with pytest.raises(KronpressError, match=re.escape("make a (4, 3) matrix, not (4, 4)")):
        nearest_kronecker_sum(torch.ones(4, 4), shape=shape)
    for terms in (0, 3):
        with pytest.raises(KronpressError, match=f"terms is {terms}; .* takes 1 to 2, where the sum is exact"):
            nearest_kronecker_sum(torch.ones(4, 3), shape=shape, terms=terms)


MEASURE = """
import resource, sys, time, torch
from kronpress.linalg import KroneckerShape, nearest_kronecker_sum
rows, columns, m2, n2, terms = map(int, sys.argv[1:])
matrix = torch.randn(rows, columns)
nearest_kronecker_sum(matrix[:64], shape=KroneckerShape.of_right((64, columns), right=(1, n2)))
before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
nearest_kronecker_sum(matrix, shape=KroneckerShape.of_right((rows, columns), right=(m2, n2)), terms=terms)
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(time.perf_counter() - started, grown * 1024 / matrix.nbytes)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads kilobytes from getrusage")
@pytest.mark.parametrize(
    "case",
    [(50257, 768, 1, 2, 1), (6400, 1600, 1, 2, 1), (6400, 1600, 80, 40, 4)],
    ids=["embedding", "wide", "square factors"],
)
def test_large_matrices_take_seconds_and_a_few_copies(case: tuple[int, ...]) -> None:
    output = subprocess.run(
        [sys.executable, "-c", MEASURE, *map(str, case)], capture_output=True, text=True, check=True
    )
    seconds, copies = map(float, output.stdout.split())
    assert seconds < 60
    assert copies < (6 if case[-1] > 1 else 4.5)  # a Gram matrix of the side 3,200 is two copies by itself
