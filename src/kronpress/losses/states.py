"""What losses between vectors of tokens have in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kronpress.activations.trace import Sizes, Trace
from kronpress.errors import KronpressError
from kronpress.losses.loss import LayerLoss

States: TypeAlias = list[tuple[Tensor, Tensor]]
"""Pairs (student, teacher) of what two layers give, (batch, tokens, dim) in fp32, both of the teacher's width."""

Reduction: TypeAlias = Literal["mean", "sum"]
"""What a loss makes of its values for single pairs of layers; papers often add them up."""


class StateLoss(LayerLoss):
    """A loss between the vectors that layers of student and teacher give for the same tokens.

    Attributes:
        project: learn a linear map for each pair of layers, from the student's width to the teacher's; it begins as
            the identity, cut or padded with zeros, is trained along and does not become part of the student.
    """

    project: bool = False

    @abstractmethod
    def pairs(self, student: int, teacher: int) -> list[tuple[int, int]]:
        """Return which of the student's layers is compared with which of the teacher's, given both depths."""

    @abstractmethod
    def layers_of(self, trace: Trace) -> list[Float[Tensor, "batch tokens dim"]]:
        """Return what the layers gave."""

    @abstractmethod
    def between(self, states: States, *, seen: Bool[Tensor, "batch tokens"]) -> Float[Tensor, ""]:
        """Return the loss of the pairs together."""

    def projection(self, student: Sizes, teacher: Sizes) -> nn.Module | None:
        """Return the linear maps, one for each pair, if asked for; torch's random numbers are left as they are.

        Raises:
            KronpressError: other depths than the pairs are for, or other widths and no maps.
        """
        with torch.random.fork_rng(devices=[]):
            pairs = self.pairs(student.depth, teacher.depth)
            if self.project:
                return nn.ModuleList(_identity(student.dim, teacher.dim) for _ in pairs)
        if student.dim != teacher.dim:
            raise KronpressError(
                f"the loss '{self.kind}' compares vectors of {student.dim} numbers in the student with "
                f"{teacher.dim} in the teacher; set project: true in it, to learn a map between them"
            )
        return None

    def __call__(
        self, student: Trace, teacher: Trace, *, seen: Bool[Tensor, "batch tokens"], projection: nn.Module | None
    ) -> Float[Tensor, ""]:
        """Return the loss of a batch."""
        return self.between(self.states_of(student, teacher, maps=projection), seen=seen)

    def states_of(self, student: Trace, teacher: Trace, *, maps: nn.Module | None) -> States:
        """Return the pairs of what the layers gave, the student's through its map."""
        ours, theirs = self.layers_of(student), self.layers_of(teacher)
        pairs = self.pairs(len(ours), len(theirs))
        moves = list(maps.children()) if maps is not None else [nn.Identity() for _ in pairs]
        return [(move(ours[i].float()), theirs[j].float()) for move, (i, j) in zip(moves, pairs, strict=True)]


def mean_of(values: Float[Tensor, " some"]) -> Float[Tensor, ""]:
    """Return the mean, and 0 of none."""
    return values.sum() / max(len(values), 1)


def over_pairs(values: list[Tensor], reduction: Reduction) -> Float[Tensor, ""]:
    """Return the mean or the sum of losses of single pairs."""
    stacked = torch.stack(values)
    return stacked.mean() if reduction == "mean" else stacked.sum()


def apart(student: Float[Tensor, "*some dim"], teacher: Float[Tensor, "*some dim"]) -> Float[Tensor, "*some"]:
    """Return the squared distance of vectors that are brought to length 1."""
    ours, theirs = (torch.nn.functional.normalize(vectors, dim=-1) for vectors in (student, teacher))
    return (ours - theirs).square().sum(dim=-1)


def _identity(inputs: int, outputs: int) -> nn.Linear:
    linear = nn.Linear(inputs, outputs, bias=False)
    nn.init.eye_(linear.weight)
    return linear
