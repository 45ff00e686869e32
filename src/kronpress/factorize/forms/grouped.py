"""Token tables whose frequent tokens have more factors than the rare ones."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

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
from kronpress.linalg import KroneckerShape, KroneckerSum
from kronpress.validation import Checked

_GROUPS = 8  # of equal size, where a share of the numbers is asked for
_LONGEST = 10  # vocabularies: a rank that falls from so far before the first token on is 1 everywhere
_EIGHT = 8  # ranks are multiples of it, which is faster
_FALL = 0.25  # of the vocabulary: over so many tokens the rank falls by a factor e; chosen on SmolLM2's table


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

    @property
    def numbers(self) -> int:
        """How many numbers stand for the rows."""
        rows, columns = self.shape.matrix
        return min(self.terms * self.shape.parameters, rows * columns)

    def nearest(self, weight: Float[Tensor, "m n"], metric: Metric) -> KroneckerSum:
        """Return the nearest sum, or the rows."""
        if self.kept:
            return KroneckerSum(weight[None], weight.new_ones(1, 1, 1))
        return super().nearest(weight, metric)


@FORMS.enroll
class Grouped(Form):
    """A table in groups of tokens of like frequency (GroupReduce, Chen et al., 2018, section 3.2).

    A fit that counts tokens says which are frequent. With `right: [1, columns]` the factors are low-rank ones. Give
    either `ratio`, and the groups are found, or the groups with `right` and `terms`.

    Attributes:
        ratio: numbers to keep, as a fraction of those of the table. Eight groups of equal size have low-rank factors;
            the most frequent tokens stay as they are, and over each next quarter of the vocabulary the rank falls to
            1/e of what it was.
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
        """Return the table of all groups."""
        groups = tuple(_spec(problem) for problem in self.problems(target))
        return GroupedEmbeddingSpec(groups=groups, padding_idx=target.padding_idx, scale=target.scale)

    def problems(self, target: Target) -> Sequence[RowsProblem]:
        """Return one for each group, and one for what remains."""
        if self.ratio is not None:
            with target.named():
                return _falling(target.matrix, ratio=self.ratio)
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
        """Solve group by group, the most frequent tokens first."""
        problems = self.problems(target)
        counts = solve.metric.row_weights
        assert counts is not None, "no fit without counts takes this form"
        order: Int[Tensor, " m"] = counts.argsort(descending=True, stable=True)
        members = order.split([problem.shape.matrix[0] for problem in problems])
        solutions: list[Solution] = [
            solve(weight[ids], problem, rows=ids) for ids, problem in zip(members, problems, strict=True)
        ]
        tables = [KroneckerEmbedding.of(solution.value) for solution in solutions]
        table = GroupedEmbedding.of(tables, order.argsort(), padding_idx=target.padding_idx)
        return table, math.hypot(*(solution.value.error for solution in solutions))


def _falling(matrix: Size, *, ratio: float) -> Sequence[RowsProblem]:
    """Return low-rank problems of groups of equal size with at most `ratio` of the numbers of a table.

    Raises:
        KronpressError: even products of one column and one row have more.
    """
    rows, columns = matrix
    wholes = range(-_LONGEST * rows, rows + 1)
    place = bisect_right(wholes, ratio * rows * columns, key=lambda whole: _numbers(_ranked(matrix, whole=whole)))
    if place == 0:
        raise KronpressError(f"ratio: {ratio:g} is too little even for rank 1; choose a larger one")
    return list(_ranked(matrix, whole=wholes[place - 1]))


def _ranked(matrix: Size, *, whole: int) -> Iterator[RowsProblem]:
    """Yield the problem of each group where the rank begins to fall behind the first `whole` tokens."""
    rows, columns = matrix
    ends = [rows * (group + 1) // _GROUPS for group in range(_GROUPS)]
    for start, end in zip([0, *ends], ends, strict=False):
        rank = int(columns * math.exp(min(0.0, (whole - (start + end) / 2) / (_FALL * rows))))
        rank = max(1, rank if rank < _EIGHT else rank // _EIGHT * _EIGHT)
        if end > start:
            yield RowsProblem(KroneckerShape.of_right((end - start, columns), right=(1, columns)), rank)


def _numbers(problems: Iterable[RowsProblem]) -> int:
    return sum(problem.numbers for problem in problems)


def _spec(problem: RowsProblem) -> KroneckerEmbeddingSpec:
    shape, terms = problem.shape, problem.terms
    if problem.kept:
        shape, terms = KroneckerShape(*shape.matrix, 1, 1), 1
    return KroneckerEmbeddingSpec(left=(shape.m1, shape.n1), right=(shape.m2, shape.n2), terms=terms)
