"""What every form has in common: which layer stands in the place of a matrix, and which problems give its numbers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeAlias

import torch
from jaxtyping import Float, Int
from pydantic import ValidationError
from torch import Tensor
from transformers import PreTrainedModel

from kronpress.errors import KronpressError
from kronpress.factorize.target import Target
from kronpress.families import Site
from kronpress.layers import LayerSpec, StructuredLayer
from kronpress.linalg import energy
from kronpress.registry import Shelf
from kronpress.validation import Checked

Norm: TypeAlias = Literal["frobenius", "inputs", "rows", "two-sided"]


@dataclass(frozen=True)
class Metric:
    """How the distance between two matrices is measured; without fields it is the Frobenius norm.

    Attributes:
        second_moment: E[x xᵀ] of the inputs x: the distance is √E‖(W − Ŵ)x‖².
        row_weights: how often each row counts.
        curvature: of the loss in the outputs, R Rᵀ: the distance is √E‖Rᵀ(W − Ŵ)x‖².
    """

    second_moment: Float[Tensor, "n n"] | None = None
    row_weights: Float[Tensor, " m"] | None = None
    curvature: Float[Tensor, "m m"] | None = None

    def norm(self, matrix: Float[Tensor, "m n"]) -> float:
        """Return the distance of a matrix from zero."""
        weight = matrix.double()
        if self.row_weights is not None:
            weight = weight * self.row_weights.sqrt()[:, None]
        if self.curvature is not None:
            weight = torch.linalg.cholesky(self.curvature).T @ weight
        if self.second_moment is not None:
            return float(energy(weight, self.second_moment).sqrt())
        return float(torch.linalg.vector_norm(weight))

    def at(self, rows: Int[Tensor, " some"] | None) -> Metric:
        """Return the metric of some rows of the matrix, or of all; the others are as they should be then."""
        if rows is None:
            return self
        weights, bends = self.row_weights, self.curvature
        return Metric(
            self.second_moment,
            None if weights is None else weights[rows],
            None if bends is None else bends[rows][:, rows],
        )


@dataclass(frozen=True)
class Solution:
    """What stands for a matrix: factors, with the norm of their error, and a number that belongs in front of them.

    The error is that of both together.
    """

    value: Any
    scale: float = 1.0


class Problem(Protocol):
    """A matrix to be written with factors of given sizes."""

    def nearest(self, weight: Float[Tensor, "m n"], metric: Metric) -> Any:
        """Return the factors that are nearest to `weight`; their `error` is the distance."""


@dataclass(frozen=True)
class Solver:
    """Solves the problems of a form under one metric.

    Attributes:
        metric: that of the whole matrix.
        method: gives the solution of a problem.
    """

    metric: Metric
    method: Callable[[Tensor, Any, Metric], Solution]

    def __call__(
        self, weight: Float[Tensor, "m n"], problem: Any, *, rows: Int[Tensor, " m"] | None = None
    ) -> Solution:
        """Solve a problem; `rows` are those of the whole matrix that `weight` holds, all by default."""
        return self.method(weight, problem, self.metric.at(rows))


class Form(Checked, ABC):
    """What stands in the place of a dense matrix; its fields are its hyperparameters.

    Attributes:
        norms: in which norms its problems can be solved.
        tables: whether it makes token tables.
        linear: whether it makes linear layers.
    """

    kind: ClassVar[str]
    norms: ClassVar[frozenset[Norm]] = frozenset({"frobenius"})
    tables: ClassVar[bool] = False
    linear: ClassVar[bool] = True

    @property
    def whole(self) -> bool:
        """Whether a fused projection is one matrix to it; by default each of its shares has factors of its own."""
        return False

    @abstractmethod
    def spec(self, target: Target) -> LayerSpec:
        """Return what stands in the place of the matrix, without looking at its numbers.

        Raises:
            KronpressError: the sizes do not fit the matrix.
        """

    @abstractmethod
    def problems(self, target: Target) -> Sequence[Any]:
        """Return the problems that `assemble` has solved.

        Raises:
            KronpressError: the sizes do not fit the matrix.
        """

    @abstractmethod
    def assemble(self, weight: Float[Tensor, "m n"], target: Target, solve: Solver) -> tuple[StructuredLayer, float]:
        """Return the layer that `spec` describes, its numbers found by `solve`, and the norm of its error."""

    def require(self, target: Target) -> None:
        """Check that the form can stand in the place of the matrix.

        Raises:
            KronpressError: it can not.
        """
        if target.table and not self.tables:
            raise KronpressError(
                f"{self.kind} makes linear layers, not the table {target.path}; leave it out of sites, or factorize it "
                f"in a step of its own with form: {', '.join(_with(tables=True))}"
            )
        if not target.table and not self.linear:
            raise KronpressError(
                f"{self.kind} makes token tables, not the linear layer {target.path}; set sites: embedding, or "
                f"form: {', '.join(_with(linear=True))}"
            )
        self.problems(target)
        try:
            self.spec(target)
        except ValidationError as error:  # sizes beyond reason
            raise KronpressError(f"{target.path}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from error

    def by_block(self) -> bool:
        """Say whether `prepare` leaves the model as it is, so that one block after another can be factorized."""
        return True

    def prepare(self, model: PreTrainedModel, sites: Collection[Site]) -> None:
        """Change dense weights where that leaves the function of the model and helps what follows."""

    def require_effect(self, model: PreTrainedModel, sites: Collection[Site], *, where: str) -> None:
        """Check that the model has what the fields speak of; `where` is how the user named the sites.

        Raises:
            KronpressError: it has not.
        """


FORMS: Shelf[type[Form]] = Shelf("form")


def _with(**does: bool) -> list[str]:
    return [name for name, form in FORMS.items() if all(getattr(form, key) == value for key, value in does.items())]
