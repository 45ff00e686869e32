"""Tensor trains: a matrix as a chain of small cores, and a table with a chain for each of its rows.

The core k of a matrix has the shape (r, m, n, s). Its ranks r and s tie it to the cores before and after it, and
are 1 at the ends of the chain; its modes m and n multiply over all cores to the rows and columns of the matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from kronpress.errors import KronpressError
from kronpress.linalg.shapes import divisors
from kronpress.linalg.svd import truncated_svd, truncated_svd_each

_CHUNK_ELEMENTS = 2**22
_NEGLIGIBLE = 1e-14  # of the largest singular value: what rounding leaves of a zero
_PADDING = 0.1  # of the size of a core's own entries

Modes = tuple[tuple[int, int], ...]
_Split = Callable[[Tensor], tuple[Tensor, Tensor, Tensor, float]]  # u, sigma, vᵀ and the norm of what is left out


@dataclass(frozen=True)
class TensorTrainMatrix:
    """A matrix written as a chain of cores, and how far it is from the matrix it stands for."""

    cores: tuple[Float[Tensor, "_r _m _n _s"], ...]
    error: float = 0.0  # Frobenius norm of the difference

    @property
    def modes(self) -> Modes:
        """The (m, n) of each core."""
        return tuple((core.shape[1], core.shape[2]) for core in self.cores)

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks between the cores, one fewer than there are cores."""
        return tuple(core.shape[3] for core in self.cores[:-1])

    def to_dense(self) -> Float[Tensor, "rows columns"]:
        """Return the matrix; the same as summing `torch.kron` over all combinations of ranks."""
        return expand_train(self.cores)


@dataclass(frozen=True)
class TensorTrainTable:
    """A table whose every row is a chain of cores of its own, and how far it is from the table it stands for."""

    cores: tuple[Float[Tensor, "rows _r _mode _s"], ...]
    error: float = 0.0  # Frobenius norm of the difference

    @property
    def modes(self) -> tuple[int, ...]:
        """The mode of each core; they multiply to the length of a row."""
        return tuple(core.shape[2] for core in self.cores)

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks between the cores, one fewer than there are cores."""
        return tuple(core.shape[3] for core in self.cores[:-1])

    def to_dense(self) -> Float[Tensor, "rows dim"]:
        """Return the table."""
        return expand_rows(self.cores)


def paired_modes(matrix: tuple[int, int], *, at_least: int) -> Modes:
    """Return the modes for a matrix (rows, columns) by the rule of Chekalina et al., 2023 (arXiv 2306.02697).

    The prime factors of both dimensions are paired in ascending order, the fewer filled up with 1, and neighboring
    pairs are merged from the left until each core holds `at_least` numbers per rank; the last may hold fewer.

    >>> paired_modes((3072, 768), at_least=80)
    ((16, 16), (16, 16), (12, 3))
    """
    merged, row, column = [], 1, 1
    for row_factor, column_factor in zip_longest(*map(_prime_factors, matrix), fillvalue=1):
        row, column = row * row_factor, column * column_factor
        if row * column >= at_least:
            merged.append((row, column))
            row = column = 1
    return (*merged, (row, column)) if row * column > 1 or not merged else tuple(merged)


def _prime_factors(number: int) -> list[int]:
    """Return the prime factors in ascending order, each as often as it divides."""
    primes = [d for d in divisors(number) if len(divisors(d)) == 2]
    return [p for p in primes for power in range(1, number.bit_length()) if number % p**power == 0]


def balanced_modes(size: int) -> tuple[int, int, int]:
    """Return three modes as equal as the divisors of `size` allow, the smallest where two ranks meet: in the middle.

    >>> balanced_modes(384)
    (8, 6, 8)
    """
    triples = ((a, b, size // (a * b)) for a in divisors(size) for b in divisors(size // a))
    return min(triples, key=lambda triple: (sum(triple), triple[1]))


def check_modes(modes: tuple[int, ...], *, size: int, axis: str) -> None:
    """Check that modes multiply to the size of an axis (`row`, `column`).

    Raises:
        KronpressError: they do not.
    """
    if math.prod(modes) != size or min(modes, default=1) < 1:
        raise KronpressError(
            f"the {axis} modes {' · '.join(map(str, modes))} multiply to {math.prod(modes)}, not {size}; choose from "
            f"its divisors {', '.join(map(str, divisors(size)))}, or leave modes out to have them chosen"
        )


def expand_train(cores: tuple[Float[Tensor, "_r _m _n _s"], ...]) -> Float[Tensor, "rows columns"]:
    """Multiply the cores of a matrix out."""
    product = cores[0].new_ones(1, 1, 1)  # rows columns r
    for core in cores:
        product = torch.einsum("ijr,rmns->imjns", product, core).flatten(2, 3).flatten(0, 1)
    return product[..., 0]


def expand_rows(cores: tuple[Float[Tensor, "rows _r _mode _s"], ...]) -> Float[Tensor, "rows dim"]:
    """Multiply the cores of each row out."""
    product = cores[0][:, 0]  # rows dim s
    for core in cores[1:]:
        product = (product @ core.flatten(2)).unflatten(2, core.shape[2:]).flatten(1, 2)
    return product[..., 0]


def tensor_train_matrix(
    matrix: Float[Tensor, "rows columns"], *, modes: Modes, rank: int, redundant: bool = False
) -> TensorTrainMatrix:
    """Return a chain of cores near to `matrix`, exact if `rank` is large enough (TT-SVD; Oseledets, 2011).

    The ranks are at most `rank` and what the modes can use, on either side of each. The error is at most √(cores − 1)
    times that of the nearest chain with these ranks; for two cores it is the nearest, a sum of Kronecker products.
    Computed in float64 and cast back to the dtype of `matrix`.

    Args:
        matrix: the matrix.
        modes: the (m, n) of each core.
        rank: the largest rank between two cores.
        redundant: fill each rank up to `rank`, also where the modes can not use it; the matrix stays the same.

    Raises:
        KronpressError: the modes are not those of the matrix, or the rank is below 1.
    """
    rows, columns = tuple(m for m, _ in modes), tuple(n for _, n in modes)
    check_modes(rows, size=matrix.shape[0], axis="row")
    check_modes(columns, size=matrix.shape[1], axis="column")
    _check_rank(rank)

    def split(unfolding: Tensor) -> tuple[Tensor, Tensor, Tensor, float]:
        svd = truncated_svd(unfolding[0], rank=min(rank, *unfolding.shape[1:]))
        return svd.u[None], svd.sigma[None], svd.v.T[None], svd.tail

    order = [axis for k in range(len(modes)) for axis in (k, len(modes) + k)]  # m1 n1 m2 n2 …
    paired = matrix.reshape(*rows, *columns).permute(order).reshape(1, -1)
    trains, error = _decompose(paired, modes=tuple(m * n for m, n in modes), split=split)
    cores = [core[0].unflatten(1, pair) for core, pair in zip(trains, modes, strict=True)]
    cores = _padded(cores, rank=rank) if redundant else cores
    return TensorTrainMatrix(tuple(core.to(matrix.dtype) for core in cores), error)


def tensor_train_rows(table: Float[Tensor, "rows dim"], *, modes: tuple[int, ...], rank: int) -> TensorTrainTable:
    """Return a chain of cores near to each row, folded to a tensor of the given modes (TensorGPT, arXiv 2307.00526).

    Rows stay independent of each other. The ranks are at most `rank` and what the modes can use. Computed in float64,
    some rows at a time, and cast back to the dtype of `table`.

    Raises:
        KronpressError: the modes do not multiply to the length of a row, or the rank is below 1.
    """
    check_modes(modes, size=table.shape[1], axis="column")
    _check_rank(rank)

    chunks = table.split(max(1, _CHUNK_ELEMENTS // table.shape[1]))
    split = partial(truncated_svd_each, rank=rank)
    trains, errors = zip(*(_decompose(chunk, modes=modes, split=split) for chunk in chunks), strict=True)
    cores = (torch.cat([core.to(table.dtype) for core in parts]) for parts in zip(*trains, strict=True))
    return TensorTrainTable(tuple(cores), math.hypot(*errors))


def train_ranks(sizes: Sequence[int], *, rank: int, redundant: bool = False) -> tuple[int, ...]:
    """Return the ranks between cores of so many numbers per rank: at most `rank` and what the modes can use.

    >>> train_ranks([4, 9, 4], rank=16)
    (4, 4)
    """
    ranks, left = [], 1
    for index, size in enumerate(sizes[:-1], start=1):
        left = min(rank, left * size, math.prod(sizes[index:]))
        ranks.append(rank if redundant else left)
    return tuple(ranks)


def _check_rank(rank: int) -> None:
    if rank < 1:
        raise KronpressError(f"rank is {rank}; a tensor train takes 1 or more")


def _decompose(
    tensors: Float[Tensor, "batch size"], *, modes: tuple[int, ...], split: _Split
) -> tuple[list[Float[Tensor, "batch _r _mode _s"]], float]:
    """Split one mode after the other off each tensor; return cores of equal norm and the error.

    Each singular value is shared evenly by its two neighbors. What one split leaves out is orthogonal to what the
    next one does, so the squares of their norms add up.
    """
    rest, cores, left_out = tensors.double()[:, None], [], 0.0
    share = torch.ones_like(rest[..., 0])  # batch r: takes back what the core before keeps
    for mode in modes[:-1]:
        u, sigma, v, tail = split(rest.flatten(1).unflatten(1, (rest.shape[1] * mode, -1)))
        cores.append(u.unflatten(1, (-1, mode)) * sigma.sqrt()[:, None, None] * share[..., None, None])
        rest, share = sigma[..., None] * v, _inverse_root(sigma)
        left_out = math.hypot(left_out, tail)
    return _of_equal_norm([*cores, (rest * share[..., None])[..., None]]), left_out


def _inverse_root(sigma: Float[Tensor, "batch rank"]) -> Float[Tensor, "batch rank"]:
    floor = _NEGLIGIBLE * sigma.amax(-1, keepdim=True)
    return torch.where(sigma > floor, sigma, torch.inf).rsqrt()


def _of_equal_norm(cores: list[Tensor]) -> list[Tensor]:
    norms = torch.stack([torch.linalg.vector_norm(core.flatten(1), dim=1) for core in cores])  # cores batch
    mean = norms.log().mean(0).exp()
    scales = torch.where(mean > 0, mean / norms, 1.0)[..., None, None, None]
    return [core * scale for core, scale in zip(cores, scales, strict=True)]


def _padded(cores: list[Tensor], *, rank: int) -> list[Tensor]:
    """Fill the ranks up to `rank` with small numbers before and zeros after, which therefore get a gradient."""
    generator, last = torch.Generator().manual_seed(0), len(cores) - 1
    padded = []
    for k, core in enumerate(cores):
        r, _, _, s = core.shape
        wide = F.pad(core, (0, rank - s if k < last else 0, 0, 0, 0, 0, 0, rank - r if k else 0))
        fresh = wide[:r, ..., s:]
        noise = torch.randn(fresh.shape, generator=generator, dtype=core.dtype).to(core.device)
        fresh.copy_(_PADDING * core.square().mean().sqrt() * noise)
        padded.append(wide)
    return padded
