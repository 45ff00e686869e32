"""Swaps of two rows, each judged by the nearest Kronecker sum to what it leaves: exact, hence for small matrices."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kronpress.linalg.shapes import KroneckerShape

_CHUNK_ELEMENTS = 2**20
_FEW = 6  # indices that a kick moves at most


def pairs_of(place: int, *, run: int) -> Int[Tensor, "pairs 2"]:
    """Return the pairs of a place with all others in its run of `run` consecutive ones."""
    start = place // run * run
    others = torch.tensor([other for other in range(start, start + run) if other != place])
    return torch.stack([torch.full_like(others, place), others], dim=1)


def errors_of_swaps(
    matrix: Float[Tensor, "m n"], pairs: Int[Tensor, "pairs 2"], *, shape: KroneckerShape, terms: int
) -> Float[Tensor, " pairs"]:
    """Return the squared error of the nearest sum, relative to the squared norm, after each swap of two rows."""
    matrix = matrix.double()
    norm = torch.linalg.vector_norm(matrix)
    matrix = matrix / torch.where(norm > 0, norm, 1.0)
    chunks = pairs.split(max(1, _CHUNK_ELEMENTS // matrix.numel()))
    return torch.cat([_tails(matrix[swapped(len(matrix), some)], shape, terms) for some in chunks]).cpu()


def cost_of_swap(shape: KroneckerShape) -> int:
    """Return about how much work it is to judge one swap, in numbers moved; most of it goes into eigenvalues."""
    return shape.matrix[0] * shape.matrix[1] + 16 * shape.max_terms**2


def swapped(size: int, pairs: Int[Tensor, "pairs 2"]) -> Int[Tensor, "pairs size"]:
    """Return one order of `size` indices for each pair: as they stand, with the two swapped."""
    return torch.arange(size).repeat(len(pairs), 1).scatter(1, pairs, pairs.flip(1))


def kicked(size: int, *, run: int, generator: torch.Generator) -> Int[Tensor, " size"]:
    """Return an order in which a few indices of one run, drawn by chance, take each other's places."""
    start = int(torch.randint(size // run, (1,), generator=generator)) * run
    count = int(torch.randint(2, _FEW + 1, (1,), generator=generator))
    drawn = start + torch.randperm(run, generator=generator)[:count]
    return torch.arange(size).scatter(0, drawn, drawn.roll(1))


def _tails(matrices: Tensor, shape: KroneckerShape, terms: int) -> Tensor:
    """Return for each matrix the sum of the squared singular values that its nearest sum discards."""
    blocks = matrices.reshape(-1, shape.m1, shape.m2, shape.n1, shape.n2).transpose(2, 3)
    tall = blocks.flatten(3).flatten(1, 2)  # (count, left size, right size)
    if tall.shape[1] < tall.shape[2]:
        tall = tall.mT
    values: Tensor = torch.linalg.eigvalsh(tall.mT @ tall)  # ascending
    return values[:, :-terms].clamp_min(0).sum(1)
