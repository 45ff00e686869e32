"""Tensor trains: of whole matrices, and of each row of a token table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from kronpress.factorize.forms.form import FORMS, Form, Metric, Solver
from kronpress.factorize.target import Target
from kronpress.layers import (
    StructuredLayer,
    TensorTrainEmbedding,
    TensorTrainEmbeddingSpec,
    TensorTrainLinear,
    TensorTrainLinearSpec,
)
from kronpress.linalg import (
    Modes,
    TensorTrainMatrix,
    TensorTrainTable,
    balanced_modes,
    check_modes,
    paired_modes,
    tensor_train_matrix,
    tensor_train_rows,
    train_ranks,
)


@dataclass(frozen=True)
class TrainProblem:
    """A matrix as a chain of cores with these modes (m, n) and ranks up to `rank`."""

    modes: Modes
    rank: int
    redundant: bool = False

    def nearest(self, weight: Float[Tensor, "m n"], metric: Metric) -> TensorTrainMatrix:
        """Return the chain that TT-SVD gives."""
        return tensor_train_matrix(weight, modes=self.modes, rank=self.rank, redundant=self.redundant)


@dataclass(frozen=True)
class TrainRowsProblem:
    """A table whose every row is a chain of cores with these modes and ranks up to `rank`."""

    modes: tuple[int, ...]
    rank: int

    def nearest(self, weight: Float[Tensor, "m n"], metric: Metric) -> TensorTrainTable:
        """Return the chains that TT-SVD gives."""
        return tensor_train_rows(weight, modes=self.modes, rank=self.rank)


@FORMS.enroll
class TensorTrain(Form):
    """A tensor-train matrix, in the shapes of TTM-R (Chekalina et al., 2023, arXiv 2306.02697).

    Attributes:
        rank: the largest rank between two cores.
        modes: (m, n) of each core, for matrices as out × in; swapped for `down`, whose matrix has the transposed
            shape. By default those of the paper, with at least `rank` numbers per rank in each core but the last.
        redundant: fill each rank up to `rank`, also where the modes can not use it, as the published counts of
            TTM-32, TTM-64 and TTM-80 do; the function stays the same.
        bias: keep the layer's bias. The published counts of TTM-16, TTM-32 and TTM-64 leave those of the
            feed-forward blocks out; dropping them changes the function, which the reported error does not show.
    """

    kind: ClassVar[str] = "tensor_train"
    rank: int = Field(ge=1)
    modes: Modes | None = Field(default=None, min_length=1)
    redundant: bool = False
    bias: bool = True

    def spec(self, target: Target) -> TensorTrainLinearSpec:
        """Return a layer over a chain of cores."""
        modes = self._modes(target)
        ranks = train_ranks([m * n for m, n in modes], rank=self.rank, redundant=self.redundant)
        return TensorTrainLinearSpec(modes=modes, ranks=ranks, bias=self.bias and target.bias is not None)

    def problems(self, target: Target) -> Sequence[TrainProblem]:
        """Return one."""
        return [TrainProblem(self._modes(target), self.rank, self.redundant)]

    def assemble(self, weight: Float[Tensor, "m n"], target: Target, solve: Solver) -> tuple[StructuredLayer, float]:
        """Solve for the cores."""
        (problem,) = self.problems(target)
        value = solve(weight, problem).value
        return TensorTrainLinear.of(value, bias=target.bias if self.bias else None), value.error

    def _modes(self, target: Target) -> Modes:
        rows, columns = target.matrix
        if self.modes is None:
            return paired_modes((rows, columns), at_least=self.rank)
        modes = tuple((n, m) for m, n in self.modes) if target.role == "down" else self.modes
        with target.named():
            check_modes(tuple(m for m, _ in modes), size=rows, axis="row")
            check_modes(tuple(n for _, n in modes), size=columns, axis="column")
        return modes


@FORMS.enroll
class TensorTrainRows(Form):
    """A tensor train for each row of a token table, all rows independent (TensorGPT, arXiv 2307.00526).

    Attributes:
        rank: the largest rank between two cores.
        modes: how a row is folded; by default into three modes as equal as its length allows.
    """

    kind: ClassVar[str] = "tensor_train_rows"
    tables: ClassVar[bool] = True
    linear: ClassVar[bool] = False
    rank: int = Field(ge=1)
    modes: tuple[int, ...] | None = Field(default=None, min_length=1)

    def spec(self, target: Target) -> TensorTrainEmbeddingSpec:
        """Return a table of chains."""
        modes = self._modes(target)
        ranks = train_ranks(modes, rank=self.rank)
        rows, _ = target.matrix
        return TensorTrainEmbeddingSpec(
            num_embeddings=rows, modes=modes, ranks=ranks, padding_idx=target.padding_idx, scale=target.scale
        )

    def problems(self, target: Target) -> Sequence[TrainRowsProblem]:
        """Return one."""
        return [TrainRowsProblem(self._modes(target), self.rank)]

    def assemble(self, weight: Float[Tensor, "m n"], target: Target, solve: Solver) -> tuple[StructuredLayer, float]:
        """Solve for the cores of all rows."""
        (problem,) = self.problems(target)
        value = solve(weight, problem).value
        return TensorTrainEmbedding.of(value, padding_idx=target.padding_idx), value.error

    def _modes(self, target: Target) -> tuple[int, ...]:
        if self.modes is None:
            return balanced_modes(target.matrix[1])
        with target.named():
            check_modes(self.modes, size=target.matrix[1], axis="column")
        return self.modes
