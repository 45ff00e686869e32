"""Reorder rows and columns so that matrices come closer to sums of Kronecker products."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kronpress.errors import KronpressError
from kronpress.linalg.exchange import Side, exchange, place
from kronpress.linalg.kronecker import KroneckerSum, nearest_kronecker_sum
from kronpress.linalg.shapes import KroneckerShape
from kronpress.linalg.swaps import cost_of_swap, errors_of_swaps, kicked, pairs_of, swapped

Orders = dict[str, Int[Tensor, " _"]]

_ROUNDING = 1e-9  # squared relative errors this close are equal
_WORTH = 1e-6  # what the sum of squared relative errors must lose for a permutation to be worth while
_STALL = 1e-3  # rounds of exchanges end when two together gain less than this share
_CHANCES, _SMALL = 4, 2**19  # starts by chance at most, and as often as the members fit into so many numbers
_AFFORDABLE = 2**26  # cost of trying all swaps, by `cost_of_swap`, up to which it is done
_KICKS = 32  # starts near the best orders at most, fewer where trying all swaps costs much
_PENALTY = 1e3  # how often what is beyond the limit of an error counts


@dataclass(frozen=True)
class Member:
    """One matrix of a search and the names of the permutations of its rows and of its columns.

    Members that share a name are reordered alike, as the rows of gate and up and the columns of down must be. A side
    without a name stays as it is; the two sides of one member have different names.
    """

    matrix: Float[Tensor, "m n"]
    shape: KroneckerShape
    terms: int = 1
    rows: str | None = None
    columns: str | None = None

    def is_moved_by(self, name: str) -> bool:
        """Say whether the permutation of this name can change the error."""
        split = {self.rows: (self.shape.m1, self.shape.m2), self.columns: (self.shape.n1, self.shape.n2)}
        return name in split and min(split[name]) > 1 and self.terms < self.shape.max_terms

    def reordered(self, orders: Orders) -> Float[Tensor, "m n"]:
        """Return the matrix with its rows and columns in the given orders."""
        matrix = self.matrix if self.rows is None else self.matrix[orders[self.rows]]
        return matrix if self.columns is None else matrix[:, orders[self.columns]]

    def turned(self, name: str, orders: Orders) -> tuple[Float[Tensor, "_ _"], KroneckerShape]:
        """Return the reordered matrix, transposed if need be so that its rows have this name, and its shape."""
        matrix, shape = self.reordered(orders), self.shape
        if name == self.rows:
            return matrix, shape
        return matrix.T, KroneckerShape(shape.n1, shape.m1, shape.n2, shape.m2)

    def side(self, name: str, orders: Orders, *, weight: float) -> Side:
        """Return the side of this name, of the matrix scaled to have the weight for its squared norm."""
        matrix, shape = self.turned(name, orders)
        matrix = matrix.float()
        matrix = matrix * (weight**0.5 / torch.linalg.vector_norm(matrix).clamp_min(torch.finfo(torch.float32).tiny))
        return Side.of_rows(matrix, shape=shape, terms=self.terms)

    def errors_of_swaps(self, name: str, orders: Orders, pairs: Int[Tensor, "pairs 2"]) -> Float[Tensor, " pairs"]:
        """Return what `squared_error` becomes by each swap of two places in the order of this name."""
        matrix, shape = self.turned(name, orders)
        return errors_of_swaps(matrix, pairs, shape=shape, terms=self.terms)

    def squared_error(self, orders: Orders) -> float:
        """Return the squared error of the nearest sum to the reordered matrix, relative to its squared norm."""
        norm = torch.linalg.vector_norm(self.matrix, dtype=torch.float64).item()
        error = nearest_kronecker_sum(self.reordered(orders), shape=self.shape, terms=self.terms).error
        return (error / norm) ** 2 if norm else 0.0


@dataclass(frozen=True)
class PermutedKroneckerSum:
    """A Kronecker sum that stands for `matrix[row_order][:, column_order]`; an order is None where nothing moves."""

    value: KroneckerSum
    row_order: Int[Tensor, " m"] | None
    column_order: Int[Tensor, " n"] | None


def nearest_permuted_kronecker_sum(
    matrix: Float[Tensor, "m n"],
    *,
    shape: KroneckerShape,
    terms: int = 1,
    rows: bool = True,
    columns: bool = True,
    rounds: int = 16,
) -> PermutedKroneckerSum:
    """Return a Kronecker sum near to the matrix with its rows, its columns or both reordered, as `search_orders` does.

    Its error is at most that of `nearest_kronecker_sum`.

    Raises:
        KronpressError: as `nearest_kronecker_sum` does.
    """
    member = Member(matrix, shape, terms, "rows" if rows else None, "columns" if columns else None)
    orders = search_orders([member], rounds=rounds)
    value = nearest_kronecker_sum(member.reordered(orders), shape=shape, terms=terms)
    moved = {name: order for name, order in orders.items() if not torch.equal(order, torch.arange(len(order)))}
    return PermutedKroneckerSum(value, moved.get("rows"), moved.get("columns"))


def search_orders(members: Sequence[Member], *, rounds: int = 16, segments: Mapping[str, int] | None = None) -> Orders:
    """Return for each name the order in which the members come nearest to their Kronecker sums.

    What is lowered is the sum over the members of squared error / squared norm; no member ends with a larger error
    than it has as it stands, and where nothing is gained the order is the identity. An order moves an index only
    inside its run of `segments[name]` consecutive ones, such as an attention head. Each call gives the same result.

    TQCompressor (Abronin et al., 2024) writes a weight as P (Σ left ⊗ right) Q without saying how P and Q are found.
    Here one factor is held and the other solved for, so that a row's gain depends only on the rows in its group. One
    slot of each group is vacated, and the rows taken out are put back by an optimal assignment; then rows swap inside
    the groups; then both factors are fitted anew. Each step is exact, hence monotone, whereas an assignment against
    the present approximation favors the rows that this was fitted to. Where the members are small enough to try all
    swaps of two indices, fitted anew after each, swaps go on until none lowers the sum; then a few indices are moved
    by chance and swaps follow again, and the better orders are kept.

    Raises:
        KronpressError: a name stands for sides of different sizes or for both sides of a member, a segment has no
            such name or does not divide its size, or as `nearest_kronecker_sum` does.
    """
    sizes = _sizes(members)
    lengths = {**sizes, **_checked(segments or {}, sizes)}
    identity = {name: torch.arange(size) for name, size in sizes.items()}
    runs = {n: run for n, run in lengths.items() if run > 1 and any(member.is_moved_by(n) for member in members)}
    search = _Search([member for member in members if any(map(member.is_moved_by, runs))], identity, runs)
    best, limits = identity, search.errors(identity)
    for start in search.starts() if runs else ():
        best = search.descend(start, best=best, limits=limits, rounds=rounds)
    best = search.polish(best, limits=limits)
    return best if search.errors(best).sum() < limits.sum() - _WORTH else identity


def _sizes(members: Sequence[Member]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for member in members:
        if member.rows is not None and member.rows == member.columns:
            raise KronpressError(f"'{member.rows}' names the rows and the columns of one member; give them two names")
        for name, size in zip((member.rows, member.columns), member.matrix.shape, strict=True):
            if name is not None and sizes.setdefault(name, size) != size:
                raise KronpressError(f"'{name}' permutes {sizes[name]} indices of one member and {size} of another")
    return sizes


def _checked(segments: Mapping[str, int], sizes: Mapping[str, int]) -> Mapping[str, int]:
    for name, length in segments.items():
        if name not in sizes:
            raise KronpressError(f"no member has a permutation '{name}'; there is {', '.join(sizes) or 'none'}")
        if length < 1 or sizes[name] % length:
            raise KronpressError(f"segments of {length} do not divide the {sizes[name]} indices of '{name}'")
    return segments


@dataclass(frozen=True)
class _Search:
    """The members that can gain, the order of each name that can matter, as it stands, and how far indices may go."""

    members: Sequence[Member]
    identity: Orders
    runs: Mapping[str, int]

    def errors(self, orders: Orders) -> Float[Tensor, " members"]:
        return torch.tensor([member.squared_error(orders) for member in self.members], dtype=torch.float64)

    def sides(self, name: str, orders: Orders, *, weights: Sequence[float]) -> list[Side]:
        pairs = zip(self.members, weights, strict=True)
        return [member.side(name, orders, weight=weight) for member, weight in pairs if member.is_moved_by(name)]

    def starts(self) -> list[Orders]:
        """Return the orders to start from: as it stands, by strength and, where the members are small, by chance."""
        sides = {name: self.sides(name, self.identity, weights=[1.0] * len(self.members)) for name in self.runs}
        scores = [{name: torch.stack([side.energy for side in found]).sum(0).cpu() for name, found in sides.items()}]
        generator = torch.Generator().manual_seed(0)
        for _ in range(min(_CHANCES, _SMALL // sum(member.matrix.numel() for member in self.members))):
            scores.append({name: torch.rand(len(self.identity[name]), generator=generator) for name in self.runs})
        placed = [
            {name: place(score[name], sides[name][0], run=run) for name, run in self.runs.items()} for score in scores
        ]
        return [self.identity, *({**self.identity, **orders} for orders in placed)]

    def descend(self, orders: Orders, *, best: Orders, limits: Float[Tensor, " members"], rounds: int) -> Orders:
        """Return the best orders met from this start on in which no error exceeds its limit, or `best`.

        With each round the weight of a member beyond its limit doubles.
        """
        lowest = float(self.errors(best).sum())
        weights, totals = torch.ones(len(self.members)), []
        for seed in range(rounds):
            orders = self.improve(orders, weights=weights.tolist(), seed=seed)
            errors = self.errors(orders)
            worse = errors > limits + _ROUNDING
            weights = torch.where(worse, 2 * weights, weights)
            totals.append(float(errors.sum()))
            if not worse.any() and totals[-1] < lowest:
                lowest, best = totals[-1], orders
            if not worse.any() and len(totals) > 2 and totals[-3] - totals[-1] <= _STALL * totals[-1]:
                break
        return best

    def improve(self, orders: Orders, *, weights: Sequence[float], seed: int) -> Orders:
        """Return the orders after one round of exchanges."""
        generator = torch.Generator().manual_seed(seed)
        for name, run in self.runs.items():
            sides = self.sides(name, orders, weights=weights)
            orders = {**orders, name: exchange(orders[name], sides, run=run, generator=generator)}
        return orders

    def polish(self, best: Orders, *, limits: Float[Tensor, " members"]) -> Orders:
        """Return better orders, such that no swap of two places lowers the errors; the same where that costs too much.

        After a first descent a few indices are moved by chance, their places are swapped with others again, and the
        result is kept where it is better.
        """
        swaps = sum(len(self.identity[name]) * run for name, run in self.runs.items())
        cost = swaps * sum(cost_of_swap(member.shape) for member in self.members)
        if not 0 < cost <= _AFFORDABLE:
            return best
        best, lowest = self.swap(best, self.places(self.identity), limits=limits)
        generator = torch.Generator().manual_seed(0)
        for _ in range(min(_KICKS, 2 * _AFFORDABLE // cost)):
            kick = {name: kicked(len(best[name]), run=run, generator=generator) for name, run in self.runs.items()}
            moved = {**best, **{name: best[name][order] for name, order in kick.items()}}
            places = [(name, place) for name, place in self.places(kick) if kick[name][place] != place]
            moved, value = self.swap(moved, places, limits=limits)
            best, lowest = (moved, value) if value < lowest - _ROUNDING else (best, lowest)
        return self.settle(best, limits=limits)

    def places(self, orders: Orders) -> list[tuple[str, int]]:
        """Return every place of the orders that can matter."""
        return [(name, place) for name in self.runs for place in range(len(orders[name]))]

    def settle(self, orders: Orders, *, limits: Float[Tensor, " members"]) -> Orders:
        """Return the orders after swaps, until no swap of two places lowers the errors."""
        lowest, before = float(_penalized(self.errors(orders), limits)), inf
        while lowest < before:
            before = lowest
            orders, lowest = self.swap(orders, self.places(orders), limits=limits)
        return orders

    def swap(
        self, orders: Orders, places: Iterable[tuple[str, int]], *, limits: Float[Tensor, " members"]
    ) -> tuple[Orders, float]:
        """Return the orders and their sum of errors after the best swap of each place, and of those that it touched."""
        errors, queue = self.errors(orders), deque(places)
        lowest = float(_penalized(errors, limits))
        while queue:
            name, place = queue.popleft()
            pairs = pairs_of(place, run=self.runs[name])
            after = self.errors_of_swaps(name, orders, pairs, now=errors)
            sums = _penalized(after, limits)
            best = int(sums.argmin())
            if sums[best] < lowest - _ROUNDING:
                lowest, errors = float(sums[best]), after[best]
                orders = {**orders, name: orders[name][swapped(len(orders[name]), pairs[best : best + 1])[0]]}
                queue.extend(touched for end in pairs[best].tolist() if (touched := (name, end)) not in queue)
        return orders, lowest

    def errors_of_swaps(self, name: str, orders: Orders, pairs: Tensor, *, now: Tensor) -> Tensor:
        """Return the errors, (pairs, members), after each swap in the order of this name."""
        after = now.repeat(len(pairs), 1)
        for index, member in enumerate(self.members):
            if member.is_moved_by(name):
                after[:, index] = member.errors_of_swaps(name, orders, pairs)
        return after


def _penalized(errors: Tensor, limits: Tensor) -> Tensor:
    """Return the sum of the errors, to which errors beyond their limits add so much that swaps lead back first."""
    beyond = (errors - limits - _ROUNDING).clamp_min(0)
    return (errors + _PENALTY * beyond).sum(-1) + len(limits) * (beyond > 0).any(-1)
