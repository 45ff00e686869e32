from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kronpress.errors import KronpressError
from kronpress.linalg import KroneckerShape, divisors

SIZES = st.integers(1, 50)
SHAPES = st.builds(KroneckerShape, m1=SIZES, n1=SIZES, m2=SIZES, n2=SIZES)


@given(number=st.integers(1, 5000))
def test_divisors_are_those_that_divide(number: int) -> None:
    assert divisors(number) == [d for d in range(1, number + 1) if number % d == 0]


@given(shape=SHAPES)
def test_either_factor_gives_the_shape(shape: KroneckerShape) -> None:
    assert KroneckerShape.of_left(shape.matrix, left=(shape.m1, shape.n1)) == shape
    assert KroneckerShape.of_right(shape.matrix, right=(shape.m2, shape.n2)) == shape


@given(shape=SHAPES)
def test_the_cheaper_order_is_taken(shape: KroneckerShape) -> None:
    costs = {order: shape.multiply_adds(right_first=order) for order in (True, False)}
    assert costs[shape.right_first] == min(costs.values())


@given(shape=SHAPES)
def test_equation_7_is_twice_the_multiply_adds_less_the_first_additions(shape: KroneckerShape) -> None:
    right = 2 * shape.multiply_adds(right_first=True) - shape.m2 * (shape.n1 + shape.m1)
    left = 2 * shape.multiply_adds(right_first=False) - shape.m1 * (shape.n2 + shape.m2)
    assert shape.flops(right_first=True) == right
    assert shape.flops(right_first=False) == left


def test_a_factor_that_does_not_divide_names_those_that_do() -> None:
    with pytest.raises(
        KronpressError, match="7 does not divide the 12 columns of the matrix; choose one of 1, 2, 3, 4"
    ):
        KroneckerShape.of_right((8, 12), right=(1, 7))
    with pytest.raises(KronpressError, match="0 does not divide the 8 rows"):
        KroneckerShape.of_left((8, 12), left=(0, 1))
    with pytest.raises(KronpressError, match=r"12 does not divide the 50257 rows .*1, 29, 1733, 50257 \(or pad"):
        KroneckerShape.of_left((50257, 768), left=(12, 1))
