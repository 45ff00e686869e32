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

    def multiply_adds(self, *, terms: int = 1, right_first: bool) -> int:
        """Return the multiply-adds of one matrix-vector product in the given order of contraction."""
        if right_first:
            return terms * self.n1 * self.m2 * (self.n2 + self.m1)
        return terms * self.n2 * self.m1 * (self.n1 + self.m2)

    @property
    def right_first(self) -> bool:
        """Whether contracting the right factor first is the cheaper order."""
        return self.multiply_adds(right_first=True) <= self.multiply_adds(right_first=False)

    def flops(self) -> int:
        """Return the FLOPs of one product in the cheaper order (KroneckerBERT, eq. 7)."""
        right = (2 * self.n2 - 1) * self.m2 * self.n1 + (2 * self.n1 - 1) * self.m2 * self.m1
        left = (2 * self.n1 - 1) * self.n2 * self.m1 + (2 * self.n2 - 1) * self.m2 * self.m1
        return min(right, left)

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
