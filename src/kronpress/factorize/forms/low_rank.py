"""Products of two narrow matrices: the baseline that Kronecker sums are measured against."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from transformers import PreTrainedModel

from kronpress.errors import KronpressError
from kronpress.factorize.forms.form import FORMS, Form, Metric, Norm, Solver
from kronpress.factorize.target import Target
from kronpress.families import Site
from kronpress.layers import LowRankLinear, LowRankLinearSpec, StructuredLayer
from kronpress.linalg import LowRank as LowRankProduct
from kronpress.linalg import nearest_low_rank


@dataclass(frozen=True)
class LowRankProblem:
    """A matrix as a product of two, with so many columns and rows between them."""

    rank: int

    def nearest(self, weight: Float[Tensor, "m n"], metric: Metric) -> LowRankProduct:
        """Return the truncated singular value decomposition, on whitened inputs where those are given."""
        return nearest_low_rank(weight, rank=self.rank, second_moment=metric.second_moment, curvature=metric.curvature)


@FORMS.enroll
class LowRank(Form):
    """A product of two narrow matrices, at the rank that keeps a share of the numbers.

    Attributes:
        ratio: numbers to keep, as a fraction of those of the matrix.
        joint: let query, key and value (or gate and up) that the model computes by one matrix have one right factor in
            common: the product of that matrix as a whole, at a higher rank for as many numbers (Joint Rank-k, Peng et
            al., 2024, arXiv 2402.16319). Modules that stand apart keep right factors of their own.
    """

    kind: ClassVar[str] = "low_rank"
    norms: ClassVar[frozenset[Norm]] = frozenset({"frobenius", "inputs", "two-sided"})
    ratio: float = Field(default=0.5, gt=0, lt=1)
    joint: bool = False

    @property
    def whole(self) -> bool:
        """Whether a fused projection is one matrix."""
        return self.joint

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

    def require_effect(self, model: PreTrainedModel, sites: Collection[Site], *, where: str) -> None:
        """Check that there is a fused projection for one product."""
        if self.joint and not any(site.shares for site in sites):
            raise KronpressError(
                f"joint: true finds nothing in {where} that this model computes by one matrix, as GPT-2 does query, "
                "key and value; leave it out"
            )

    def _rank(self, target: Target) -> int:
        rows, columns = target.matrix
        return max(1, int(self.ratio * rows * columns / (rows + columns)))
