"""The steps of the permutation search: refill one vacated slot of each group, optimally, and swap inside the groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import torch
from jaxtyping import Float, Int
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
        position = self.position[slots]
        rows, held = self.rows(slots), self.held[:, position].transpose(0, 1)  # (k, free, fixed), (k, terms, fixed)
        others = (self.fit(slots) - rows @ held.mT) @ held  # what the rest of the group makes of each slot
        alone = torch.einsum("kfx,tpx->pkft", rows, self.held).square().sum((2, 3))
        return 2 * rows.flatten(1) @ others.flatten(1).T + alone[position].T

    def swap_gains(self, slots: Int[Tensor, " k"], mates: Int[Tensor, " k"]) -> Float[Tensor, " k"]:
        """Return what swapping the rows in each slot and its mate, of the same group, adds to the group's energy."""
        held = self.held[:, self.position[slots]] - self.held[:, self.position[mates]]
        change = (self.rows(mates) - self.rows(slots)) @ held.permute(1, 2, 0)
        return ((2 * self.fit(slots) + change) * change).sum((1, 2))

    def fit(self, slots: Int[Tensor, " k"]) -> Float[Tensor, "k free terms"]:
        """Return the free factors of the slots' groups."""
        return torch.einsum("gfpx,tpx->gft", self.blocks, self.held)[self.group[slots]]

    def mates(self, slots: Int[Tensor, " k"], *, step: int) -> Int[Tensor, " k"]:
        """Return the slots of the same groups `step` positions further on, cyclically."""
        positions = self.blocks.shape[2]
        table = (self.group * positions + self.position).argsort()
        return table[self.group[slots] * positions + (self.position[slots] + step) % positions]

    def rows(self, slots: Int[Tensor, " k"]) -> Float[Tensor, "k free fixed"]:
        """Return the rows now in these slots."""
        return self.blocks[self.group[slots], :, self.position[slots]]

    def move(self, slots: Int[Tensor, " k"], source: Int[Tensor, " k"]) -> None:
        """Put the rows now in the slots `source` into these slots."""
        self.blocks[self.group[slots], :, self.position[slots]] = self.rows(source)


def exchange(
    order: Int[Tensor, " size"], sides: Sequence[Side], *, run: int, generator: torch.Generator
) -> Int[Tensor, " size"]:
    """Return a better order for the sides together, which are left in it; each slot has been vacated about once.

    Indices stay inside their runs of `run` consecutive slots.
    """
    order = order.clone()
    vacated = min(_LARGEST, *(len(side.blocks) for side in sides))
    for step in range(ceil(len(order) / vacated)):
        slots = _vacate(sides, generator)[:vacated]
        gains = torch.stack([side.gains(slots) for side in sides]).sum(0)
        _move(order, sides, slots=slots, source=slots[_assign(gains, slots // run)])
        slots, mates = _pairs(slots, sides, step=step, run=run)
        better = torch.stack([side.swap_gains(slots, mates) for side in sides]).sum(0).cpu() > 0
        slots, mates = slots[better], mates[better]
        _move(order, sides, slots=torch.cat([slots, mates]), source=torch.cat([mates, slots]))
    return order


def _move(order: Tensor, sides: Sequence[Side], *, slots: Tensor, source: Tensor) -> None:
    for side in sides:
        side.move(slots, source)
    order[slots] = order[source]


def _pairs(slots: Tensor, sides: Sequence[Side], *, step: int, run: int) -> tuple[Tensor, Tensor]:
    """Return those of the slots, and their mates, that are of one group on all sides and of one run."""
    positions = sides[0].blocks.shape[2]
    mates = sides[0].mates(slots, step=1 + step % (positions - 1))
    apart = [side.group[slots] != side.group[mates] for side in sides] + [slots // run != mates // run]
    close = ~torch.stack(apart).any(0)
    return slots[close], mates[close]


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
    from scipy.optimize import linear_sum_assignment

    source = torch.arange(len(runs))
    values = (gains - gains.mean(0)).cpu()  # the same optimum, found three times as fast
    for run in runs.unique():
        here = (runs == run).nonzero().flatten()
        rows, slots = linear_sum_assignment(values[here][:, here].numpy(), maximize=True)
        source[here[slots]] = here[rows]
    return source


def place(score: Float[Tensor, " size"], side: Side, *, run: int) -> Int[Tensor, " size"]:
    """Return the order with the highest scores of each run in the first positions of the run."""
    runs = torch.arange(len(score)) // run
    highest = score.argsort(descending=True, stable=True)
    highest = highest[runs[highest].argsort(stable=True)]  # run by run
    slots = (runs * len(score) + side.position).argsort(stable=True)
    return torch.empty_like(highest).scatter(0, slots, highest)
