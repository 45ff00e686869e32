"""Shapes of Kronecker sums: which factors a matrix admits and what they cost."""

from __future__ import annotations

from dataclasses import dataclass

from kronpress.errors import KronpressError


def divisors(number: int) -> list[int]:
    """Return the divisors of `number` in increasing order."""
    small = [d for d in range(1, int(number**0.5) + 1) if number % d == 0]
    return sorted({*small, *(number // d for d in small)})


@dataclass(frozen=True)
class KroneckerShape:
    """The shapes of one term `left ⊗ right`: left (m1, n1), right (m2, n2), product (m1·m2, n1·n2), out × in.

    >>> KroneckerShape(m1=384, n1=768, m2=2, n2=1).matrix
    (768, 768)
    """

    m1: int
    n1: int
    m2: int
    n2: int

    @property
    def matrix(self) -> tuple[int, int]:
        """The (rows, columns) of the product."""
        return self.m1 * self.m2, self.n1 * self.n2

    @property
    def parameters(self) -> int:
        """Numbers that one term stores."""
        return self.m1 * self.n1 + self.m2 * self.n2

    @property
    def max_terms(self) -> int:
        """Terms with which every matrix is represented exactly."""
        return min(self.m1 * self.n1, self.m2 * self.n2)

    def require_terms(self, terms: int) -> None:
        """Check that a sum can use so many terms.

        Raises:
            KronpressError: it can not.
        """
        if not 1 <= terms <= self.max_terms:
            raise KronpressError(f"terms is {terms}; {self} takes 1 to {self.max_terms}, where the sum is exact")

    def inner_products(self, *, right_first: bool) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return (length, count) of the inner products of one term with a vector, for each of the two contractions."""
        if right_first:
            return (self.n2, self.m2 * self.n1), (self.n1, self.m2 * self.m1)
        return (self.n1, self.m1 * self.n2), (self.n2, self.m2 * self.m1)

    @property
    def right_first(self) -> bool:
        """Whether contracting the right factor first is the cheaper order."""
        return self.multiply_adds(right_first=True) <= self.multiply_adds(right_first=False)

    def multiply_adds(self, *, right_first: bool) -> int:
        """Return the multiply-adds of one term with a vector in the given order of contraction."""
        return sum(length * count for length, count in self.inner_products(right_first=right_first))

    def flops(self, *, right_first: bool) -> int:
        """Return the FLOPs of one term with a vector in the given order (KroneckerBERT, eq. 7)."""
        return sum((2 * length - 1) * count for length, count in self.inner_products(right_first=right_first))

    @classmethod
    def of_left(cls, matrix: tuple[int, int], *, left: tuple[int, int]) -> KroneckerShape:
        """Return the shape that splits `matrix` (rows, columns) given the left factor's (m1, n1).

        Raises:
            KronpressError: a dimension of the factor does not divide the matrix's.
        """
        m2 = _quotient(matrix[0], left[0], "rows")
        return cls(left[0], left[1], m2, _quotient(matrix[1], left[1], "columns"))

    @classmethod
    def of_right(cls, matrix: tuple[int, int], *, right: tuple[int, int]) -> KroneckerShape:
        """Return the shape that splits `matrix` (rows, columns) given the right factor's (m2, n2).

        Raises:
            KronpressError: a dimension of the factor does not divide the matrix's.
        """
        m1 = _quotient(matrix[0], right[0], "rows")
        return cls(m1, _quotient(matrix[1], right[1], "columns"), *right)


def _quotient(size: int, factor: int, axis: str) -> int:
    if factor < 1 or size % factor:
        choices = ", ".join(map(str, divisors(size)))
        raise KronpressError(
            f"{factor} does not divide the {size} {axis} of the matrix; choose one of {choices}"
            + ("" if len(divisors(size)) > 4 else " (or pad the matrix, for instance the vocabulary)")
        )
    return size // factor
