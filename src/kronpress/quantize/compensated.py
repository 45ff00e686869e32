"""Codes that are nearest for the inputs of a text: each error is made up for by the numbers that are still to come."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kronpress.layers import Coded, Grid
from kronpress.linalg import energy, positive_definite
from kronpress.quantizers import nearest

_NUMBERS = 2**26  # in memory at a time, where rows share no scale
_BLOCK = 64  # columns whose errors reach the later ones together


@dataclass
class _Rounded:
    """A matrix on its way to a grid.

    Attributes:
        weight: (m, n) what is to be rounded.
        second: (n, n) E[x xᵀ] of the inputs x, positive definite.
        scale: (rows, groups, 1) of the grid.
        shift: likewise, or None.
        codes: (m, n).
    """

    grid: Grid
    weight: Float[Tensor, "m n"]
    second: Float[Tensor, "n n"]
    scale: Tensor
    shift: Tensor | None
    codes: Int[Tensor, "m n"]

    @cached_property
    def lines(self) -> tuple[Float[Tensor, "m n"], Float[Tensor, "m n"] | None]:
        """The scale and shift of each number."""
        scale, shift = (None if part is None else self._per_number(part) for part in (self.scale, self.shift))
        assert scale is not None
        return scale, shift

    def _per_number(self, numbers: Tensor) -> Float[Tensor, "m n"]:
        rows, groups = numbers.shape[:2]
        row = numbers.expand(-1, -1, self.weight.shape[1] // groups).reshape(rows, -1)
        return row.expand(self.weight.shape)

    def nearest(self, numbers: Float[Tensor, " m"], *, column: int) -> tuple[Int[Tensor, " m"], Float[Tensor, " m"]]:
        """Return the codes that are nearest to the numbers of a column, and what they stand for."""
        scale, shift = (None if part is None else part[:, column, None, None] for part in self.lines)
        assert scale is not None
        codes = self.grid.codes(numbers[:, None, None], scale, shift)
        return codes[:, 0, 0], self.grid.values(codes, scale, shift)[:, 0, 0]

    def values(self) -> Float[Tensor, "m n"]:
        """Return the numbers that the codes stand for."""
        groups = self.codes.reshape(*self.scale.shape[:2], -1)
        return self.grid.values(groups, self.scale, self.shift).reshape(self.weight.shape)

    def error(self) -> float:
        """Return E‖(W − W')x‖²."""
        return float(energy(self.weight - self.values(), self.second))


def compensated(
    weight: Float[Tensor, "m n"], grid: Grid, second_moment: Float[Tensor, "n n"], *, rounds: int, ridge: float
) -> Coded:
    """Return codes W' of a matrix W with a small E‖(W − W')x‖² over the inputs x of a text.

    Scales are those of the least squared error, weighted by E[x²]. Codes are found column by column, the columns with
    the largest inputs first; the later ones make up for the errors of those before (GPTQ, Frantar et al., 2023, with
    its order by activations and static groups). Then `rounds` times: scales are solved for by least squares with the
    codes as they are, and every column takes the codes that are best with all others as they are.

    Args:
        weight: W, out × in.
        grid: where the numbers go.
        second_moment: E[x xᵀ].
        rounds: how often scales and codes are fitted to one another.
        ridge: what is added to the diagonal of the second moment, relative to its mean.

    Returns:
        Codes (rows, groups, size); no scale is negative.

    Raises:
        KronpressError: the second moment is not finite.
    """
    regularized, _ = positive_definite(second_moment, ridge=ridge)
    order = _Order.of(regularized)
    groups, n = grid.scales(weight.shape)[1], weight.shape[1]
    rows = len(weight) if grid.group == "tensor" else max(1, _NUMBERS // (groups * n))
    parts = [_compensated(part, grid, regularized, order, rounds=rounds) for part in weight.split(rows)]
    codes, scales, shifts = zip(*((part.codes, part.scale, part.shift) for part in parts), strict=True)
    return Coded(torch.cat(codes), torch.cat(scales), None if shifts[0] is None else torch.cat(shifts))


@dataclass
class _Order:
    """In which order columns are rounded, and how the error of one goes to those after it.

    Attributes:
        columns: those with the largest inputs first.
        spread: the upper Cholesky factor of the inverse of E[x xᵀ], in this order.
    """

    columns: Int[Tensor, " n"]
    spread: Float[Tensor, "n n"]

    @classmethod
    def of(cls, second: Float[Tensor, "n n"]) -> _Order:
        columns = second.diagonal().argsort(descending=True)
        inverse = torch.linalg.inv(second.double()[columns][:, columns])
        return cls(columns, torch.linalg.cholesky(inverse, upper=True).float())


def _compensated(
    weight: Float[Tensor, "m n"], grid: Grid, regularized: Float[Tensor, "n n"], order: _Order, *, rounds: int
) -> Coded:
    """Return the codes of some rows."""
    second = regularized.to(weight.device, torch.float32)
    numbers = weight.float()
    start = nearest(grid.groups(numbers), grid, weights=grid.groups(second.diagonal().expand_as(numbers)))
    codes = start.codes.reshape(weight.shape)
    plain = _Rounded(grid, numbers, second, start.scale, start.shift, codes)
    best = min(plain, replace(plain, codes=_column_by_column(plain, order)), key=_Rounded.error)
    for _ in range(rounds):
        better = _with_best_codes(_with_best_scales(best))
        if better.error() >= best.error():
            break
        best = better
    return Coded(best.codes.reshape(*best.scale.shape[:2], -1), best.scale, best.shift)


def _column_by_column(matrix: _Rounded, order: _Order) -> Int[Tensor, "m n"]:
    """Return the codes of GPTQ: what a column's rounding leaves goes to those after it, as the inputs allow."""
    columns, spread = order.columns, order.spread
    left, codes = matrix.weight[:, columns].clone(), torch.empty_like(matrix.codes)
    for start in range(0, left.shape[1], _BLOCK):
        end = min(start + _BLOCK, left.shape[1])
        errors = torch.empty_like(left[:, start:end])
        for place in range(start, end):
            column = int(columns[place])
            codes[:, column], value = matrix.nearest(left[:, place], column=column)
            errors[:, place - start] = (left[:, place] - value) / spread[place, place]
            left[:, place:end] -= errors[:, place - start, None] * spread[place, place:end]
        left[:, end:] -= errors @ spread[start:end, end:]
    return codes


def _with_best_scales(matrix: _Rounded) -> _Rounded:
    """Solve for the scales, and shifts, with the least error, the codes being as they are."""
    rows, groups = matrix.scale.shape[:2]
    levels = (matrix.grid.lowest + matrix.grid.step * matrix.codes).float()
    bases = [levels] if matrix.shift is None else [levels, torch.ones_like(levels)]  # of a group they are its columns
    pulls = [_by_group(basis, matrix.second, groups=groups) for basis in bases]
    right = torch.cat([(pull * matrix.weight[:, None]).sum(dim=-1) for pull in pulls], dim=1)
    products = [[(pull * basis[:, None]).unflatten(2, (groups, -1)).sum(dim=-1) for basis in bases] for pull in pulls]
    gram = torch.cat([torch.cat(blocks, dim=2) for blocks in products], dim=1)
    if rows == 1:  # all rows share them
        gram, right = gram.sum(dim=0, keepdim=True), right.sum(dim=0, keepdim=True)
    jitter = 1e-6 * gram.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None] + 1e-30
    solved = torch.linalg.solve(gram + jitter * torch.eye(gram.shape[1], device=gram.device), right)
    scale, *shift = (matrix.grid.rounded(part[..., None]) for part in solved.split(groups, dim=1))
    usable = scale > 0  # quantizers learn no others
    return replace(
        matrix,
        scale=torch.where(usable, scale, matrix.scale),
        shift=None if matrix.shift is None else torch.where(usable, shift[0], matrix.shift),
    )


def _by_group(basis: Float[Tensor, "m n"], second: Float[Tensor, "n n"], *, groups: int) -> Float[Tensor, "m groups n"]:
    """Return, for each row b and group g, b E[x xᵀ] over the columns of the group alone."""
    columns = basis.view(len(basis), groups, -1).transpose(0, 1)  # groups m size
    return torch.bmm(columns, second.view(groups, -1, second.shape[1])).transpose(0, 1)


def _with_best_codes(matrix: _Rounded) -> _Rounded:
    """Let every column in turn take the codes that are best with all others as they are."""
    codes, values = matrix.codes.clone(), matrix.values()
    pull = (matrix.weight - values) @ matrix.second
    for column in range(codes.shape[1]):
        wanted = values[:, column] + pull[:, column] / matrix.second[column, column]
        codes[:, column], value = matrix.nearest(wanted, column=column)
        pull -= (value - values[:, column])[:, None] * matrix.second[column]
        values[:, column] = value
    return replace(matrix, codes=codes)
