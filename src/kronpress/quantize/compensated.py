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

_ROWS = 4096  # at a time, which bounds memory where they share no scale
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
        scale, shift = (None if part is None else self._spread(part) for part in (self.scale, self.shift))
        assert scale is not None
        return scale, shift

    def _spread(self, numbers: Tensor) -> Float[Tensor, "m n"]:
        rows, groups = numbers.shape[:2]
        each = numbers.expand(-1, -1, self.weight.shape[1] // groups).reshape(rows, -1)
        return each.expand(self.weight.shape)

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
    """
    regularized, _ = positive_definite(second_moment, ridge=ridge)
    rows = len(weight) if grid.group == "tensor" else _ROWS
    parts = [_compensated(part, grid, regularized, rounds=rounds) for part in weight.split(rows)]
    codes, scales, shifts = zip(*((part.codes, part.scale, part.shift) for part in parts), strict=True)
    return Coded(torch.cat(codes), torch.cat(scales), None if shifts[0] is None else torch.cat(shifts))


def _compensated(weight: Float[Tensor, "m n"], grid: Grid, regularized: Float[Tensor, "n n"], *, rounds: int) -> Coded:
    """Return the codes of some rows."""
    second = regularized.to(weight.device, torch.float32)
    numbers = weight.float()
    start = nearest(grid.groups(numbers), grid, weights=grid.groups(second.diagonal().expand_as(numbers)))
    codes = start.codes.reshape(weight.shape)
    plain = _Rounded(grid, numbers, second, start.scale, start.shift, codes)
    best = min(plain, replace(plain, codes=_column_by_column(plain, regularized)), key=_Rounded.error)
    for _ in range(rounds):
        better = _with_best_codes(_with_best_scales(best))
        if better.error() >= best.error():
            break
        best = better
    return Coded(best.codes.reshape(*best.scale.shape[:2], -1), best.scale, best.shift)


def _column_by_column(matrix: _Rounded, second: Float[Tensor, "n n"]) -> Int[Tensor, "m n"]:
    """Return the codes of GPTQ: what a column's rounding leaves goes to those after it, as the inputs allow."""
    order = second.diagonal().argsort(descending=True)
    inverse = torch.linalg.inv(second.double()[order][:, order])
    spread = torch.linalg.cholesky(inverse, upper=True).float()
    left, codes = matrix.weight[:, order].clone(), torch.empty_like(matrix.codes)
    for start in range(0, left.shape[1], _BLOCK):
        end = min(start + _BLOCK, left.shape[1])
        errors = torch.empty_like(left[:, start:end])
        for place in range(start, end):
            column = int(order[place])
            codes[:, column], value = matrix.nearest(left[:, place], column=column)
            errors[:, place - start] = (left[:, place] - value) / spread[place, place]
            left[:, place:end] -= errors[:, place - start, None] * spread[place, place:end]
        left[:, end:] -= errors @ spread[start:end, end:]
    return codes


def _with_best_scales(matrix: _Rounded) -> _Rounded:
    """Solve for the scales, and shifts, with the least error, the codes being as they are."""
    (rows, groups), n = matrix.scale.shape[:2], matrix.weight.shape[1]
    levels = (matrix.grid.lowest + matrix.grid.step * matrix.codes).float()
    parts = [levels] if matrix.shift is None else [levels, torch.ones_like(levels)]
    mask = torch.eye(groups, device=levels.device).repeat_interleave(n // groups, dim=1)  # groups n
    basis = torch.cat([part[:, None] * mask for part in parts], dim=1)  # m parts·groups n
    weighted = basis @ matrix.second
    gram, right = weighted @ basis.mT, (weighted @ matrix.weight[..., None])[..., 0]
    if rows == 1:  # all rows share them
        gram, right = gram.sum(dim=0, keepdim=True), right.sum(dim=0, keepdim=True)
    jitter = 1e-6 * gram.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None] + 1e-30
    solved = torch.linalg.solve(gram + jitter * torch.eye(gram.shape[1], device=gram.device), right)
    scale, *shift = (matrix.grid.rounded(part[..., None]) for part in solved.split(groups, dim=1))
    return replace(matrix, scale=scale, shift=shift[0] if shift else None)


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
