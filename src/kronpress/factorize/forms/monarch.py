"""Monarch matrices: two block-diagonal factors with a permutation around one of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from kronpress.errors import KronpressError
from kronpress.factorize.forms.form import FORMS, Form, Metric, Norm, Solver
from kronpress.factorize.target import Target
from kronpress.layers import MonarchLinear, MonarchLinearSpec, StructuredLayer
from kronpress.linalg import MonarchMatrix, nearest_monarch, require_blocks


@dataclass(frozen=True)
class MonarchProblem:
    """A matrix in blocks × blocks sub-blocks, each of this rank."""

    blocks: int
    rank: int

    def nearest(self, weight: Float[Tensor, "m n"], metric: Metric) -> MonarchMatrix:
        """Return the nearest Monarch matrix (Dao et al., 2022), or a near one for given inputs."""
        return nearest_monarch(weight, blocks=self.blocks, rank=self.rank, second_moment=metric.second_moment)


@FORMS.enroll
class Monarch(Form):
    """P · L · Pᵀ · R with block-diagonal L and R (Dao et al., 2022, arXiv 2204.00595), for linear layers.

    The rank of the sub-blocks is the one that keeps a share of the numbers. The paper's rank 1 is that of many blocks.
    As many numbers are kept as by `low_rank` with a rank of blocks · rank, but the matrix has more than that rank.
    Mixing along the sequence (Fu et al., 2023, Monarch Mixer) is another use of these matrices, and is left out.

    Attributes:
        blocks: of each factor; they divide both sides of the matrix. With one block this is `low_rank`.
        ratio: numbers to keep, as a fraction of those of the matrix.
    """

    kind: ClassVar[str] = "monarch"
    norms: ClassVar[frozenset[Norm]] = frozenset({"frobenius", "inputs"})
    blocks: int = Field(default=4, ge=1)
    ratio: float = Field(default=0.5, gt=0, lt=1)

    def spec(self, target: Target) -> MonarchLinearSpec:
        """Return a layer over two block-diagonal factors."""
        rows, columns = target.matrix
        return MonarchLinearSpec(
            in_features=columns,
            out_features=rows,
            blocks=self.blocks,
            rank=self._rank(target),
            bias=target.bias is not None,
        )

    def problems(self, target: Target) -> Sequence[MonarchProblem]:
        """Return one."""
        return [MonarchProblem(self.blocks, self._rank(target))]

    def assemble(self, weight: Float[Tensor, "m n"], target: Target, solve: Solver) -> tuple[StructuredLayer, float]:
        """Solve for the blocks of the two factors."""
        (problem,) = self.problems(target)
        value = solve(weight, problem).value
        return MonarchLinear.of(value, bias=target.bias), value.error

    def _rank(self, target: Target) -> int:
        rows, columns = target.matrix
        with target.named():
            require_blocks(target.matrix, blocks=self.blocks)
            least = self.blocks * (rows + columns) / (rows * columns)
            if least > self.ratio:
                raise KronpressError(
                    f"{self.blocks} blocks keep {math.ceil(100 * least) / 100:g} of the numbers or more, and ratio is "
                    f"{self.ratio:g}; choose fewer blocks, or a larger ratio"
                )
        return int(self.ratio / least)
