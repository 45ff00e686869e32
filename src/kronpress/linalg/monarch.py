"""Monarch matrices: two block-diagonal factors with a transposing permutation around the left one.

With `blocks` = b the columns of an (m, n) matrix are cut into b runs and its rows are dealt to b groups, row i to group
i mod b. What group l takes from run k is the sub-block (l, k), of the shape (m/b, n/b): a product of the given rank.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from kronpress.errors import KronpressError
from kronpress.linalg.ridge import energy
from kronpress.linalg.shapes import divisors
from kronpress.linalg.svd import truncated_svd_each

_SWEEPS = 20
_ENOUGH = 2e-3  # relative decrease of the squared error in a sweep that is worth another one
_RIDGE = 1e-12  # relative to the mean of the diagonal; factors may be dependent
_LEAST = 1e-300  # that can be divided by


@dataclass(frozen=True)
class MonarchMatrix:
    """A matrix written as P · L · Pᵀ · R, and how far it is from the matrix it stands for.

    Attributes:
        left: (blocks, m/blocks, blocks·rank) the blocks of L; block l writes the rows of group l.
        right: (blocks, blocks·rank, n/blocks) the blocks of R; block k reads the run k of the inputs, and gives `rank`
            numbers to each block of L.
        error: norm of the difference that was minimized.
    """

    left: Float[Tensor, "blocks p middle"]
    right: Float[Tensor, "blocks middle q"]
    error: float = 0.0

    @property
    def rank(self) -> int:
        """That of each sub-block."""
        return self.left.shape[2] // self.left.shape[0]

    def to_dense(self) -> Float[Tensor, "m n"]:
        """Return the matrix."""
        return expand_monarch(self.left, self.right)


def expand_monarch(
    left: Float[Tensor, "blocks p middle"], right: Float[Tensor, "blocks middle q"]
) -> Float[Tensor, "m n"]:
    """Multiply the factors out: row j·blocks + l and column k·q + i is Σ_r left[l, j, (k, r)] · right[k, (l, r), i]."""
    blocks = len(left)
    outer = left.unflatten(2, (blocks, -1)).transpose(1, 2)  # l k p rank
    inner = right.unflatten(1, (blocks, -1)).transpose(0, 1)  # l k rank q
    return _joined(outer @ inner)


def require_blocks(matrix: tuple[int, int], *, blocks: int) -> None:
    """Check that both sides of a matrix can be cut into so many parts.

    Raises:
        KronpressError: they can not.
    """
    if blocks < 1 or any(size % blocks for size in matrix):
        rows, columns = matrix
        choices = ", ".join(map(str, divisors(math.gcd(rows, columns))))
        raise KronpressError(
            f"blocks is {blocks}, which must divide the {rows} rows and the {columns} columns; choose one of {choices}"
        )


def nearest_monarch(
    matrix: Float[Tensor, "m n"], *, blocks: int, rank: int, second_moment: Float[Tensor, "n n"] | None = None
) -> MonarchMatrix:
    """Return the Monarch matrix with sub-blocks of the given rank that is nearest to `matrix`.

    In the Frobenius norm the sub-blocks are problems of their own, and the truncated singular value decomposition of
    each solves it (Dao et al., 2022, arXiv 2204.00595, who take rank 1). With the positive definite second moment
    C = E[x xᵀ] of its inputs the distance is √E‖(W − Ŵ)x‖², in which the sub-blocks of a group depend on one another.
    Then, from the nearest in the Frobenius norm on, all left factors and then one run of columns after the other are
    solved for exactly, the others being held, until that hardly helps: no further than the start. Computed in float64
    and cast back to the dtype of `matrix`.

    Raises:
        KronpressError: the blocks do not divide the matrix, or the rank is below 1 or above the smaller side of a
            sub-block.
    """
    require_blocks((matrix.shape[0], matrix.shape[1]), blocks=blocks)
    pieces = _pieces(matrix.double(), blocks)
    smaller = min(pieces.shape[2:])
    if not 1 <= rank <= smaller:
        raise KronpressError(f"rank is {rank}; a sub-block of {tuple(pieces.shape[2:])} takes 1 to {smaller}")
    u, sigma, v, error = truncated_svd_each(pieces.flatten(0, 1), rank=rank)
    root, grid = sigma.sqrt()[..., None], (blocks, blocks)
    outer, inner = (u * root.mT).unflatten(0, grid), (root * v).unflatten(0, grid)
    if second_moment is not None:
        error = _improve(pieces, outer, inner, second_moment.double())
    left, right = outer.transpose(1, 2).flatten(2), inner.transpose(0, 1).flatten(1, 2)
    return MonarchMatrix(left.to(matrix.dtype).contiguous(), right.to(matrix.dtype).contiguous(), error)


def _pieces(matrix: Float[Tensor, "m n"], blocks: int) -> Float[Tensor, "blocks blocks p q"]:
    """Return the sub-blocks, group of rows by run of columns."""
    pieces: Tensor = matrix.unflatten(0, (-1, blocks)).unflatten(2, (blocks, -1))  # p l k q
    return pieces.permute(1, 2, 0, 3)


def _joined(pieces: Float[Tensor, "blocks blocks p q"]) -> Float[Tensor, "m n"]:
    """Undo `_pieces`."""
    return pieces.permute(2, 0, 1, 3).flatten(2).flatten(0, 1)


def _improve(
    pieces: Float[Tensor, "blocks blocks p q"],
    outer: Float[Tensor, "blocks blocks p rank"],
    inner: Float[Tensor, "blocks blocks rank q"],
    moment: Float[Tensor, "n n"],
) -> float:
    """Change the factors, in place, to those of a matrix that is nearer for the inputs; return its distance."""
    runs = list(torch.arange(len(moment), device=moment.device).chunk(pieces.shape[1]))
    roots = [torch.linalg.cholesky(moment[run][:, run]) for run in runs]
    missed = _energy(_missed(pieces, outer, inner), moment)
    for _ in range(_SWEEPS):
        outer.copy_(_left_of(pieces, inner, moment))
        rest = _missed(pieces, outer, inner)
        for k, (run, root) in enumerate(zip(runs, roots, strict=True)):
            before = outer[:, k] @ inner[:, k]
            outer[:, k], inner[:, k] = _run_of(rest @ moment[:, run], before, root, rank=outer.shape[3])
            rest[..., run] += before - outer[:, k] @ inner[:, k]
        last, missed = missed, _energy(rest, moment)
        if last - missed <= _ENOUGH * last:
            break
    return math.sqrt(max(missed, 0.0))


def _left_of(
    pieces: Float[Tensor, "blocks blocks p q"],
    inner: Float[Tensor, "blocks blocks rank q"],
    moment: Float[Tensor, "n n"],
) -> Float[Tensor, "blocks blocks p rank"]:
    """Return the left factors that are best with these right ones, all runs together: a regression for each group."""
    grid = torch.diag_embed(inner.movedim(1, -1)).permute(0, 3, 1, 4, 2)  # l k rank k q: block-diagonal
    wide = grid.flatten(3).flatten(1, 2)
    seen = wide @ moment
    normal = seen @ wide.mT
    diagonal = normal.diagonal(dim1=1, dim2=2)
    ridge = (_RIDGE * diagonal.mean(1, keepdim=True)).clamp_min(_LEAST).expand_as(diagonal)
    weight = pieces.transpose(1, 2).flatten(2)
    left: Tensor = torch.linalg.solve(normal + torch.diag_embed(ridge), seen @ weight.mT).unflatten(1, grid.shape[1:3])
    return left.mT


def _run_of(
    seen: Float[Tensor, "blocks p q"],
    before: Float[Tensor, "blocks p q"],
    root: Float[Tensor, "q q"],
    *,
    rank: int,
) -> tuple[Float[Tensor, "blocks p rank"], Float[Tensor, "blocks rank q"]]:
    """Return the factors of a run that are best while those of the others are held.

    What is missed without the run is regressed on the inputs of the run, and the product that is nearest to that for
    these inputs is a truncated decomposition of its own product with the root of their second moment.

    Args:
        seen: E[e xᵀ] of what is missed, e, and the inputs x of the run.
        before: the product of the present factors, which e is without.
        root: the root S of the second moment of the inputs of the run, S Sᵀ.
        rank: that of the factors.
    """
    regressed = torch.linalg.solve_triangular(root.T, seen, upper=True, left=False)
    u, sigma, v, _ = truncated_svd_each(regressed + before @ root, rank=rank)
    scale = sigma.sqrt()[..., None]
    return u * scale.mT, torch.linalg.solve_triangular(root, scale * v, upper=False, left=False)


def _missed(
    pieces: Float[Tensor, "blocks blocks p q"],
    outer: Float[Tensor, "blocks blocks p rank"],
    inner: Float[Tensor, "blocks blocks rank q"],
) -> Float[Tensor, "blocks p n"]:
    return (pieces - outer @ inner).transpose(1, 2).flatten(2)


def _energy(rest: Float[Tensor, "blocks p n"], moment: Float[Tensor, "n n"]) -> float:
    return float(energy(rest.flatten(0, 1), moment))
