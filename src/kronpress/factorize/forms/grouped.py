"""Token tables whose frequent tokens have more factors than the rare ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from kronpress.errors import KronpressError
from kronpress.factorize.forms.form import FORMS, Form, Metric, Norm, Solution, Solver
from kronpress.factorize.forms.kronecker import KroneckerProblem
from kronpress.factorize.target import Size, Target
from kronpress.layers import (
    GroupedEmbedding,
    GroupedEmbeddingSpec,
    KroneckerEmbedding,
    KroneckerEmbeddingSpec,
    StructuredLayer,
)
from kronpress.linalg import KroneckerShape, KroneckerSum, low_rank_groups
from kronpress.validation import Checked

_GROUPS = 8  # where a share of the numbers is asked for


class Group(Checked):
    """Tokens whose rows share factors.

    Attributes:
        tokens: how many of them.
        terms: Kronecker products in their sum.
    """

    tokens: int = Field(ge=1)
    terms: int = Field(ge=1)


class RowsProblem(KroneckerProblem):
    """Some rows of a table as a sum of Kronecker products, or as they are where those hold no more numbers."""

    @property
    def kept(self) -> bool:
        """Whether the rows stay as they are."""
        rows, columns = self.shape.matrix
        return self.terms * self.shape.parameters >= rows * columns

    def nearest(self, weight: Float[Tensor, "m n"], metric: Metric) -> KroneckerSum:
        """Return the nearest sum, or the rows."""
        if self.kept:
            return KroneckerSum(weight[None], weight.new_ones(1, 1, 1))
        return super().nearest(weight, metric)


@FORMS.enroll
class Grouped(Form):
    """A table in groups of tokens with factors of their own (GroupReduce, Chen et al., 2018, section 3.2).

    A fit that counts tokens says which are frequent. With `right: [1, columns]` the factors are low-rank ones. Give
    either `ratio`, and the groups are found, or the groups with `right` and `terms`.

    Attributes:
        ratio: numbers to keep, as a fraction of those of the table. Up to eight groups have low-rank factors. They
            begin with equal sizes, by frequency; then their ranks and their tokens are found in turn (section 3.3
            there), so that little is missed in the metric of the fit (see `low_rank_groups`).
        groups: the most frequent tokens, the next ones, and so on, with the terms that each group has for itself.
            Rows that factors would not make smaller stay as they are.
        right: (1, n2) of the right factors.
        terms: Kronecker products in the sum of the remaining tokens.
    """

    kind: ClassVar[str] = "grouped"
    norms: ClassVar[frozenset[Norm]] = frozenset({"rows"})
    tables: ClassVar[bool] = True
    linear: ClassVar[bool] = False
    ratio: float | None = Field(default=None, gt=0, lt=1)
    groups: tuple[Group, ...] = ()
    right: Size | None = None
    terms: int = Field(default=1, ge=1)

    def unread(self) -> dict[str, str]:
        """Return what the groups that `ratio` finds have no use for."""
        told = "ratio finds the groups and their terms; leave either out"
        return {} if self.ratio is None else dict.fromkeys(("groups", "right", "terms"), told)

    @model_validator(mode="after")
    def _has_groups(self) -> Grouped:
        if self.ratio is None and not (self.groups and self.right):
            raise KronpressError(f"form {self.kind} has no groups; give ratio, or groups and right")
        return self

    def spec(self, target: Target) -> GroupedEmbeddingSpec:
        """Return the table of all groups; where `ratio` finds them, their first sizes and as many numbers at most."""
        groups = tuple(_spec(problem) for problem in self.problems(target))
        return GroupedEmbeddingSpec(groups=groups, padding_idx=target.padding_idx, scale=target.scale)

    def problems(self, target: Target) -> Sequence[RowsProblem]:
        """Return one for each group, and one for what remains."""
        if self.ratio is not None:
            with target.named():
                return _even(target.matrix, ratio=self.ratio)
        rows, columns = target.matrix
        assert self.right is not None
        with target.named():
            whole = KroneckerShape.of_right((rows, columns), right=self.right)
            if whole.m2 != 1:
                raise KronpressError(
                    f"{self.kind} needs right factors that are rows, not {whole.m2} × {whole.n2}; "
                    f"choose right: [1, {whole.n2}]"
                )
            for terms in (self.terms, *(group.terms for group in self.groups)):
                whole.require_terms(terms)
        taken = sum(group.tokens for group in self.groups)
        if taken >= rows:
            raise KronpressError(
                f"{self.kind}: groups name {taken} tokens and {target.path} has {rows}; leave some for the rest"
            )
        sizes = [(group.tokens, group.terms) for group in self.groups] + [(rows - taken, self.terms)]
        return [
            RowsProblem(KroneckerShape.of_right((tokens, columns), right=self.right), terms) for tokens, terms in sizes
        ]

    def assemble(self, weight: Float[Tensor, "m n"], target: Target, solve: Solver) -> tuple[StructuredLayer, float]:
        """Solve group by group."""
        groups = self._groups(weight, target, solve.metric)
        solutions: list[Solution] = [solve(weight[ids], problem, rows=ids) for ids, problem in groups]
        tables = [KroneckerEmbedding.of(solution.value) for solution in solutions]
        positions = torch.cat([ids for ids, _ in groups]).argsort()
        table = GroupedEmbedding.of(tables, positions, padding_idx=target.padding_idx)
        return table, math.hypot(*(solution.value.error for solution in solutions))

    def _groups(
        self, weight: Float[Tensor, "m n"], target: Target, metric: Metric
    ) -> Sequence[tuple[Int[Tensor, " some"], RowsProblem]]:
        """Return the tokens of each group with their problem."""
        assert metric.row_weights is not None, "no fit without counts takes this form"
        order: Int[Tensor, " m"] = metric.row_weights.argsort(descending=True, stable=True)
        problems = self.problems(target)
        members = order.split([problem.shape.matrix[0] for problem in problems])
        if self.ratio is None:
            return list(zip(members, problems, strict=True))
        found = low_rank_groups(_seen(weight, metric), members, numbers=int(self.ratio * weight.numel()))
        return [(group.rows, _low_rank((len(group.rows), weight.shape[1]), rank=group.rank)) for group in found]


def _even(matrix: Size, *, ratio: float) -> Sequence[RowsProblem]:
    """Return low-rank problems of groups of equal size and equal rank with at most `ratio` of the numbers of a table.

    Raises:
        KronpressError: even products of one column and one row have more.
    """
    rows, columns = matrix
    groups = min(_GROUPS, rows)
    rank = int(ratio * rows * columns) // (rows + groups * columns)
    if rank < 1:
        raise KronpressError(f"ratio: {ratio:g} is too little even for rank 1; choose a larger one")
    ends = [rows * group // groups for group in range(groups + 1)]
    return [_low_rank((end - start, columns), rank=rank) for start, end in pairwise(ends)]


def _low_rank(matrix: Size, *, rank: int) -> RowsProblem:
    return RowsProblem(KroneckerShape.of_right(matrix, right=(1, matrix[1])), rank)


def _seen(weight: Float[Tensor, "m n"], metric: Metric) -> Float[Tensor, "m n"]:
    """Return the matrix whose Frobenius norm is that of a table in a metric of rows and columns."""
    assert metric.row_weights is not None
    rows = weight.float() * metric.row_weights.sqrt().float()[:, None]
    return rows if metric.second_moment is None else rows @ torch.linalg.cholesky(metric.second_moment).float()


def _spec(problem: RowsProblem) -> KroneckerEmbeddingSpec:
    shape, terms = problem.shape, problem.terms
    if problem.kept:
        shape, terms = KroneckerShape(*shape.matrix, 1, 1), 1
    return KroneckerEmbeddingSpec(left=(shape.m1, shape.n1), right=(shape.m2, shape.n2), terms=terms)
