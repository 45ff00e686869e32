"""Products of two narrow matrices: the baseline that Kronecker sums are measured against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from kronpress.factorize.forms.form import FORMS, Form, Metric, Norm, Solver
from kronpress.factorize.target import Target
from kronpress.layers import LowRankLinear, LowRankLinearSpec, StructuredLayer
from kronpress.linalg import LowRank as LowRankProduct
from kronpress.linalg import nearest_low_rank


@dataclass(frozen=True)
class LowRankProblem:
    """A matrix as a product of two, with so many columns and rows between them."""

    rank: int

    def nearest(self, weight: Float[Tensor, "m n"], metric: Metric) -> LowRankProduct:
        """Return the truncated singular value decomposition, on whitened inputs where those are given."""
        return nearest_low_rank(weight, rank=self.rank, second_moment=metric.second_moment)


@FORMS.enroll
class LowRank(Form):
    """A product of two narrow matrices, at the rank that keeps a share of the numbers.

    Attributes:
        ratio: numbers to keep, as a fraction of those of the matrix.
    """

    kind: ClassVar[str] = "low_rank"
    norms: ClassVar[frozenset[Norm]] = frozenset({"frobenius", "inputs"})
    ratio: float = Field(default=0.5, gt=0, lt=1)

    def spec(self, target: Target) -> LowRankLinearSpec:
        """Return a low-rank layer."""
        rows, columns = target.matrix
        return LowRankLinearSpec(
            in_features=columns, out_features=rows, rank=self._rank(target), bias=target.bias is not None
        )

    def problems(self, target: Target) -> Sequence[LowRankProblem]:
        """Return one."""
        return [LowRankProblem(self._rank(target))]

    def assemble(self, weight: Float[Tensor, "m n"], target: Target, solve: Solver) -> tuple[StructuredLayer, float]:
        """Solve for the two factors."""
        value = solve(weight, LowRankProblem(self._rank(target))).value
        return LowRankLinear.of(value, bias=target.bias), value.error

    def _rank(self, target: Target) -> int:
        rows, columns = target.matrix
        return max(1, int(self.ratio * rows * columns / (rows + columns)))
