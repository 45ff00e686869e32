"""Products of two narrow matrices with some rows of the matrix beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from kronpress.errors import KronpressError
from kronpress.factorize.forms.form import FORMS, Form, Metric, Norm, Solver
from kronpress.factorize.target import Target
from kronpress.layers import LowRankSparseLinear, LowRankSparseLinearSpec, StructuredLayer
from kronpress.linalg import LowRankSparse, nearest_low_rank_sparse


@dataclass(frozen=True)
class LowRankSparseProblem:
    """A matrix as a product of this rank with so many rows beside it."""

    rank: int
    rows: int

    def nearest(self, weight: Float[Tensor, "m n"], metric: Metric) -> LowRankSparse:
        """Return a product and rows that are near together, on whitened inputs where those are given."""
        return nearest_low_rank_sparse(weight, rank=self.rank, rows=self.rows, second_moment=metric.second_moment)


@FORMS.enroll
class LoSparse(Form):
    """A product of two narrow matrices, plus S, which keeps some rows (LoSparse, Li et al., 2023, arXiv 2306.11222).

    The rows are whole output neurons of the matrix as out × in. (The paper writes inputs on the left of the matrix and
    calls them columns.) It chooses them by their importance over a training; here they are the ones that the product
    misses most, and no training is needed.

    Attributes:
        ratio: numbers to keep, as a fraction of those of the matrix.
        sparse: the share of these that are rows; at least one row is kept.
    """

    kind: ClassVar[str] = "losparse"
    norms: ClassVar[frozenset[Norm]] = frozenset({"frobenius", "inputs"})
    ratio: float = Field(default=0.5, gt=0, lt=1)
    sparse: float = Field(default=0.1, gt=0, lt=1)

    def spec(self, target: Target) -> LowRankSparseLinearSpec:
        """Return a low-rank layer with rows beside it."""
        rows, columns = target.matrix
        sizes = self._sizes(target)
        return LowRankSparseLinearSpec(
            in_features=columns, out_features=rows, rank=sizes.rank, rows=sizes.rows, bias=target.bias is not None
        )

    def problems(self, target: Target) -> Sequence[LowRankSparseProblem]:
        """Return one."""
        return [self._sizes(target)]

    def assemble(self, weight: Float[Tensor, "m n"], target: Target, solve: Solver) -> tuple[StructuredLayer, float]:
        """Solve for the product and the rows."""
        value = solve(weight, self._sizes(target)).value
        return LowRankSparseLinear.of(value, bias=target.bias), value.error

    def _sizes(self, target: Target) -> LowRankSparseProblem:
        rows, columns = target.matrix
        kept = max(1, int(self.sparse * self.ratio * rows))
        rank = int((self.ratio * rows * columns - kept * columns) / (rows + columns))
        if rank < 1:
            with target.named():
                raise KronpressError(
                    f"ratio {self.ratio:g} with sparse {self.sparse:g} keeps {kept} of {rows} rows, and beside them no "
                    "product of rank 1; choose a larger ratio or a smaller sparse"
                )
        return LowRankSparseProblem(rank, kept)
