"""The step of the permutation search: vacate a slot in each block and refill all of them at once, optimally."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from kronpress.linalg.shapes import KroneckerShape
from kronpress.linalg.svd import truncated_svd

_LARGEST = 1024  # slots vacated at once; an assignment costs their cube


@dataclass(frozen=True)
class Side:
    """The rows of a matrix as slots of a Kronecker structure, one factor of which is held.

    A slot has a group and a position: with the right factor held, row i·m2 + k is position k of group i; with the
    left one held, position i of group k. Since the free factor is solved for, the energy ‖fit‖² of the nearest sum
    that keeps the held factors is a sum over the groups. The columns are the rows of the transposed matrix.
    """

    blocks: Float[Tensor, "groups free positions fixed"]
    held: Float[Tensor, "terms positions fixed"]  # orthonormal
    group: Int[Tensor, " size"]
    position: Int[Tensor, " size"]

    @classmethod
    def of_rows(cls, matrix: Float[Tensor, "m n"], *, shape: KroneckerShape, terms: int) -> Side:
        """Hold the best factors of the present order; those of which each group has fewer slots."""
        blocks = matrix.reshape(shape.m1, shape.m2, shape.n1, shape.n2).permute(0, 2, 1, 3)
        slot = torch.arange(len(matrix))
        group, position = slot // shape.m2, slot % shape.m2
        if shape.m1 < shape.m2:
            blocks, group, position = blocks.permute(2, 3, 0, 1), position, group
        held = truncated_svd(blocks.flatten(2).flatten(0, 1), rank=terms).v.T
        copy = blocks.clone(memory_format=torch.contiguous_format)  # to be reordered in place
        return cls(copy, held.reshape(terms, *blocks.shape[2:]).to(matrix.dtype), group, position)

    @property
    def energy(self) -> Float[Tensor, " size"]:
        """The squared norm of the row in each slot."""
        return self.blocks.square().sum((1, 3))[self.group, self.position]

    def gains(self, slots: Int[Tensor, " k"]) -> Float[Tensor, "k k"]:
        """Return what the row now in slot i adds to the energy of slot j's group once slot j is vacated, (i, j).

        No two slots may be of one group: then the gains of an assignment add up exactly.
        """
        group, position = self.group[slots], self.position[slots]
        rows, held = self.rows(slots), self.held[:, position].transpose(0, 1)  # (k, free, fixed), (k, terms, fixed)
        fit = torch.einsum("gfpx,tpx->gft", self.blocks, self.held)[group]
        others = (fit - rows @ held.mT) @ held  # what the rest of the group makes of each slot
        alone = torch.einsum("kfx,tpx->pkft", rows, self.held).square().sum((2, 3))
        return 2 * rows.flatten(1) @ others.flatten(1).T + alone[position].T

    def rows(self, slots: Int[Tensor, " k"]) -> Float[Tensor, "k free fixed"]:
        """Return the rows now in these slots."""
        return self.blocks[self.group[slots], :, self.position[slots]]

    def fill(self, slots: Int[Tensor, " k"], rows: Float[Tensor, "k free fixed"]) -> None:
        """Put rows into these slots."""
        self.blocks[self.group[slots], :, self.position[slots]] = rows


def exchange(
    order: Int[Tensor, " size"], sides: Sequence[Side], *, run: int, generator: torch.Generator
) -> Int[Tensor, " size"]:
    """Return a better order for the sides together, which are left in it; each slot has been vacated about once.

    Indices stay inside their runs of `run` consecutive slots.
    """
    order = order.clone()
    vacated = min(_LARGEST, *(len(side.blocks) for side in sides))
    for _ in range(ceil(len(order) / vacated)):
        slots = _vacate(sides, generator)[:vacated]
        gains = torch.stack([side.gains(slots) for side in sides]).sum(0)
        source = slots[_assign(gains, slots // run)]
        for side in sides:
            side.fill(slots, side.rows(source))
        order[slots] = order[source]
    return order


def _vacate(sides: Sequence[Side], generator: torch.Generator) -> Int[Tensor, " k"]:
    """Return slots drawn so that no two are of one group on any side: those with the lowest lots of their groups."""
    lot = torch.randperm(len(sides[0].group), generator=generator)
    chosen = torch.ones(len(lot), dtype=torch.bool)
    for side in sides:
        lowest = torch.full((len(side.blocks),), len(lot)).scatter_reduce(0, side.group, lot, "amin")
        chosen &= lowest[side.group] == lot
    slots = chosen.nonzero().flatten()
    return slots[lot[slots].argsort()]


def _assign(gains: Float[Tensor, "k k"], runs: Int[Tensor, " k"]) -> Int[Tensor, " k"]:
    """Return for each slot j the row i to put there, such that the sum of gains is largest and rows keep their run."""
    source = torch.arange(len(runs))
    values = (gains - gains.mean(0)).cpu().numpy()  # the same optimum, found three times as fast
    for run in runs.unique():
        here = (runs == run).nonzero().flatten()
        rows, slots = linear_sum_assignment(values[here][:, here], maximize=True)
        source[here[slots]] = here[rows]
    return source


def place(score: Float[Tensor, " size"], side: Side, *, run: int) -> Int[Tensor, " size"]:
    """Return the order with the highest scores of each run in the first positions of the run."""
    runs = torch.arange(len(score)) // run
    highest = score.argsort(descending=True, stable=True)
    highest = highest[runs[highest].argsort(stable=True)]  # run by run
    slots = (runs * len(score) + side.position).argsort(stable=True)
    return torch.empty_like(highest).scatter(0, slots, highest)
