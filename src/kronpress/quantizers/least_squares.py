"""Scales, and shifts, with which a grid is nearest to numbers in weighted squares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from kronpress.layers import Coded, Grid, Groups, Scales

_SHRINK = 0.86  # from a width of the grid to the next
_WIDTHS = 18  # the least is 0.08 of what reaches all numbers
_TINY = 1e-30


class Line(NamedTuple):
    """The scale, and shift, of each group: the line from levels to numbers."""

    scale: Scales
    shift: Scales | None


class LineFit:
    """Numbers w that are to be put on a grid, with weights d of their squared errors.

    Attributes:
        groups: the numbers.
        grid: where they go.
        weights: None where all count alike.
        narrow: whether a level below minus the highest is left out, so that levels are symmetric around zero.
    """

    def __init__(self, groups: Groups, grid: Grid, *, weights: Groups | None = None, narrow: bool = False) -> None:
        self.groups, self.grid, self.narrow = groups, grid, narrow
        self.weights = None if weights is None else normalized(weights)

    def coded(self, line: Line) -> Coded:
        """Return the nearest codes, with scale and shift as the grid stores them."""
        scale = self.grid.rounded(line.scale)
        shift = None if line.shift is None else self.grid.rounded(line.shift)
        groups = self.groups
        if self.narrow:
            highest = self.grid.numbers[-1] * scale
            groups = torch.maximum(torch.minimum(groups, highest), -highest)
        return Coded(self.grid.codes(groups, scale, shift), scale, shift)

    def error(self, coded: Coded) -> Scales:
        """Return Σ d (value - w)² of each group."""
        return self._sum((self.grid.values(*coded) - self.groups).square())

    def better(self, line: Line, other: Line) -> Coded:
        """Return the codes with the line that has, as the grid stores it, the least error in each group."""
        first, second = self.coded(line), self.coded(other)
        better = self.error(first) <= self.error(second)
        best = chosen(better, Line(first.scale, first.shift), Line(second.scale, second.shift))
        return Coded(torch.where(better, first.codes, second.codes), *best)

    def levels(self, line: Line) -> Groups:
        """Return the nearest levels."""
        numbers = self.groups if line.shift is None else self.groups - line.shift
        lowest, highest, step = self.grid.lowest, self.grid.numbers[-1], self.grid.step
        steps = numbers / torch.where(line.scale == 0, 1.0, line.scale)
        if step != 1:
            return steps.sub_(lowest).div_(step).round_().clamp_(0, self.grid.base - 1).mul_(step).add_(lowest)
        return steps.round_().clamp_(-highest if self.narrow else lowest, highest)

    def refit(self, levels: Groups, line: Line) -> tuple[Line, Scales]:
        """Return the line nearest to the numbers with levels l as they are, and by how much it lowers the error.

        Without a shift the scale is Σdwl / Σdl²; with one, l and w are taken from their weighted means. A group whose
        levels leave it open keeps its line.
        """
        squares = self._dot(levels, levels)
        products = _dot(self._weighted, levels)
        middle = None
        if line.shift is not None:
            middle = self._sum(levels) / self._total
            squares = squares - self._total * middle.square()
        open_ = (squares <= _TINY) | (products <= 0)
        scale = torch.where(open_, line.scale, products / squares.clamp(min=_TINY))
        shift = line.shift
        if middle is not None and shift is not None:
            shift = torch.where(open_, shift, self._center - scale * middle)
        return Line(scale, shift), torch.where(open_, 0.0, products.square() / squares.clamp(min=_TINY))

    def descend(self, starts: Iterable[Line], *, iterations: int) -> Line:
        """Return the best start of each group, then scale and codes fitted to one another in turn."""
        best, gains = None, torch.empty(0)
        for start in starts:
            line, gain = self.refit(self.levels(start), start)
            better = torch.ones_like(gain, dtype=torch.bool) if best is None else gain > gains
            best, gains = (line, gain) if best is None else (chosen(better, line, best), torch.maximum(gain, gains))
        assert best is not None, "there is no start"
        for _ in range(iterations):
            before, (best, _gain) = best, self.refit(self.levels(best), best)
            if torch.equal(best.scale, before.scale):
                break
        return best

    @cached_property
    def _center(self) -> Scales:
        return self._sum(self.groups) / self._total

    @cached_property
    def _weighted(self) -> Groups:
        numbers = self.groups - self._center if self.grid.shift else self.groups
        return numbers if self.weights is None else numbers * self.weights

    @cached_property
    def _total(self) -> Scales:
        return self._sum(torch.ones_like(self.groups))

    def _sum(self, numbers: Groups) -> Scales:
        return numbers.sum(dim=-1, keepdim=True) if self.weights is None else _dot(numbers, self.weights)

    def _dot(self, left: Groups, right: Groups) -> Scales:
        return _dot(left if self.weights is None else left * self.weights, right)


def nearest(
    groups: Groups, grid: Grid, *, weights: Groups | None = None, narrow: bool = False, iterations: int = 10
) -> Coded:
    """Return the codes with the least weighted squared error that is found: of many widths the best, then refined.

    It is never above the error of the grid that reaches all numbers (`Grid.span`), group by group.
    """
    fit = LineFit(groups, grid, weights=weights, narrow=narrow)
    return fit.better(fit.descend(widths(groups, grid), iterations=iterations), span(groups, grid))


def span(groups: Groups, grid: Grid) -> Line:
    """Return the line of the grid that reaches all numbers."""
    return Line(*grid.span(groups))


def widths(groups: Groups, grid: Grid) -> Iterator[Line]:
    """Go through the lines of grids that reach all numbers, and ever fewer of them."""
    factors = [_SHRINK**power for power in range(_WIDTHS)]
    if grid.shift:
        scale, shift = grid.span(groups)
        assert shift is not None
        center = groups.mean(dim=-1, keepdim=True)
        yield from (Line(scale * factor, center + (shift - center) * factor) for factor in factors)
        return
    low, high = groups.amin(dim=-1, keepdim=True), groups.amax(dim=-1, keepdim=True)
    reach = high / grid.numbers[-1]
    if grid.lowest < 0:
        reach = torch.maximum(reach, low / grid.lowest)
        yield Line(torch.maximum(high, -low) / grid.numbers[-1], None)
    yield from (Line(reach.clamp(min=0) * factor, None) for factor in factors)


def chosen(better: Tensor, line: Line, other: Line) -> Line:
    """Return `line` where it is better, else the other."""
    shift = None
    if line.shift is not None and other.shift is not None:
        shift = torch.where(better, line.shift, other.shift)
    return Line(torch.where(better, line.scale, other.scale), shift)


def normalized(weights: Groups) -> Groups:
    """Return weights that are at most 1 in each group; all alike where they are zero."""
    largest = weights.amax(dim=-1, keepdim=True)
    return torch.where(largest > 0, weights / torch.where(largest > 0, largest, 1.0), 1.0)


def _dot(left: Groups, right: Groups) -> Scales:
    products: Tensor = torch.linalg.vecdot(left, right)
    return products[..., None]
