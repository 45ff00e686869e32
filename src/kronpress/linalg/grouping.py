"""Rows of a matrix in groups, each with low-rank factors of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

_EIGHT = 8  # ranks are multiples of it, which is faster
_SWEEPS = 10
_GAIN = 0.005  # of the error: a sweep that gains less is the last
_CHUNK_ELEMENTS = 2**22


@dataclass(frozen=True)
class RowGroup:
    """Rows of a matrix that share the factors of a product.

    Attributes:
        rows: their numbers.
        rank: of the product; as many as there are columns where the rows stay as they are.
        missed: the squared norm of what the product misses.
    """

    rows: Int[Tensor, " some"]
    rank: int
    missed: float


def low_rank_groups(
    matrix: Float[Tensor, "m n"], groups: Sequence[Int[Tensor, " _"]], *, numbers: int
) -> Sequence[RowGroup]:
    """Group the rows of a matrix so that low-rank products of the groups miss little of it.

    In turn two things are found, as in GroupReduce (Chen et al., 2018, section 3.3), until that hardly helps. The ranks
    of the groups: each number costs the same price, and every group takes the rank where what it misses and what it
    costs are least together; the price is the one at which all numbers are spent. Then the groups: each row goes where
    what is missed of it and the price of its numbers are least together.

    Args:
        matrix: the matrix.
        groups: where to begin: the numbers of the rows in each group.
        numbers: how many the factors of all groups may hold; enough for rank 1 everywhere.
    """
    best: list[RowGroup] = []
    for _ in range(_SWEEPS):
        spectra = [_Spectrum.of(matrix, rows) for rows in groups]
        price = _price(spectra, numbers=numbers)
        found = [spectrum.at(price) for spectrum in spectra]
        missed = _missed(found)
        if best and missed > (1 - _GAIN) * _missed(best):
            return found if missed < _missed(best) else best
        best = found
        bases = [spectrum.vectors[:, : group.rank] for spectrum, group in zip(spectra, found, strict=True)]
        nearest = torch.cat(list(_nearest(matrix, bases, price=price)))
        groups = [rows for i in range(len(bases)) if len(rows := (nearest == i).nonzero().flatten())]
    return best


@dataclass(frozen=True)
class _Spectrum:
    """What products of each rank miss of a group, and what they hold.

    Attributes:
        rows: of the group.
        ranks: that a product may have, with the number of columns as the last, for the rows as they are.
        missed: the squared norm of what the product of each rank misses.
        numbers: what it holds.
        vectors: the right singular vectors, the largest singular value first.
    """

    rows: Int[Tensor, " some"]
    ranks: Int[Tensor, " ranks"]
    missed: Float[Tensor, " ranks"]
    numbers: Int[Tensor, " ranks"]
    vectors: Float[Tensor, "n n"]

    @classmethod
    def of(cls, matrix: Float[Tensor, "m n"], rows: Int[Tensor, " some"]) -> _Spectrum:
        columns = matrix.shape[1]
        gram = matrix.new_zeros(columns, columns, dtype=torch.float64)
        for some in rows.split(max(1, _CHUNK_ELEMENTS // columns)):
            wide = matrix[some].double()
            gram.addmm_(wide.T, wide)
        values, vectors = (part.flip(-1) for part in torch.linalg.eigh(gram))
        ranks = torch.tensor([*range(1, min(_EIGHT, columns)), *range(_EIGHT, columns, _EIGHT), columns])
        tails = values.clamp_min(0).flip(0).cumsum(0).flip(0).cpu()  # of all values from each one on
        missed, numbers = torch.cat([tails, tails.new_zeros(1)])[ranks], ranks * (len(rows) + columns)
        whole = len(rows) * columns
        missed[numbers >= whole] = 0.0
        return cls(rows, ranks, missed, numbers.clamp_max(whole), vectors.to(matrix.dtype))

    def at(self, price: float) -> RowGroup:
        """Return the group with the rank that is best where a number costs so much."""
        chosen = self._best(price)
        whole = int(self.numbers[chosen]) == len(self.rows) * len(self.vectors)
        rank = len(self.vectors) if whole else int(self.ranks[chosen])
        return RowGroup(self.rows, rank, float(self.missed[chosen]))

    def spent(self, price: float) -> int:
        """Return how many numbers the group then has."""
        return int(self.numbers[self._best(price)])

    def _best(self, price: float) -> int:
        return int((self.missed + price * self.numbers).argmin())


def _price(spectra: Sequence[_Spectrum], *, numbers: int) -> float:
    """Return the least price of a number at which so many are enough."""
    high = max(sum(float(spectrum.missed[0]) for spectrum in spectra), torch.finfo(torch.float32).tiny)
    low = high * 2.0**-80
    for _ in range(80):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if sum(spectrum.spent(middle) for spectrum in spectra) > numbers else (low, middle)
    return high


def _nearest(
    matrix: Float[Tensor, "m n"], bases: Sequence[Float[Tensor, "n _"]], *, price: float
) -> Iterator[Int[Tensor, " some"]]:
    """Yield for some rows after others in which space, at its price, they lie best."""
    for rows in matrix.split(max(1, _CHUNK_ELEMENTS // matrix.shape[1])):
        norms = rows.square().sum(dim=1)
        costs = [norms - (rows @ basis).square().sum(dim=1) + price * basis.shape[1] for basis in bases]
        yield torch.stack(costs).argmin(dim=0)


def _missed(groups: Sequence[RowGroup]) -> float:
    return sum(group.missed for group in groups)
