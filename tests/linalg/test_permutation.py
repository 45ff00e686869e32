from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kronpress.errors import KronpressError
from kronpress.linalg import (
    KroneckerShape,
    Member,
    PermutedKroneckerSum,
    exchange,
    expand,
    nearest_kronecker_sum,
    nearest_permuted_kronecker_sum,
    search_orders,
)

SIZES = st.integers(1, 4)
SHAPES = st.builds(KroneckerShape, m1=SIZES, n1=SIZES, m2=SIZES, n2=SIZES)
SEEDS = st.integers(0, 999)


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def shuffle(size: int, *, seed: int) -> Tensor:
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed))


def identity(members: Sequence[Member]) -> dict[str, Tensor]:
    sides = [pair for m in members for pair in zip((m.rows, m.columns), m.matrix.shape, strict=True)]
    return {name: torch.arange(size) for name, size in sides if name is not None}


def errors(members: Sequence[Member], orders: dict[str, Tensor]) -> list[float]:
    """The squared relative errors, computed from the reordered matrices alone."""
    found = []
    for member in members:
        rows, columns = (torch.arange(size) for size in member.matrix.shape)
        rows, columns = orders.get(member.rows or "", rows), orders.get(member.columns or "", columns)
        matrix = member.matrix[rows][:, columns].double()
        near = nearest_kronecker_sum(matrix, shape=member.shape, terms=member.terms)
        found.append(((matrix - near.to_dense()).norm() / matrix.norm()).item() ** 2)
    return found


def assert_sound(members: Sequence[Member], orders: dict[str, Tensor]) -> None:
    """The orders are permutations, and no member is worse off than unpermuted."""
    assert {name: len(order) for name, order in orders.items()} == {n: len(o) for n, o in identity(members).items()}
    assert all(torch.equal(order.sort().values, torch.arange(len(order))) for order in orders.values())
    for now, before in zip(errors(members, orders), errors(members, identity(members)), strict=True):
        assert now <= before + 1e-8


def turned(shape: KroneckerShape) -> KroneckerShape:
    return KroneckerShape(shape.n1, shape.m1, shape.n2, shape.m2)


@given(shape=SHAPES, other=SHAPES, data=st.data(), seed=SEEDS)
@settings(deadline=None, max_examples=4)
def test_no_member_is_worse_off(shape: KroneckerShape, other: KroneckerShape, data: st.DataObject, seed: int) -> None:
    terms = data.draw(st.integers(1, shape.max_terms))
    facing = KroneckerShape(other.m1, shape.n1, other.m2, shape.n2)  # columns as many as those of the first
    members = [
        Member(random(*shape.matrix, seed=seed), shape, terms=terms, rows="rows", columns="shared"),
        Member(random(*facing.matrix, seed=seed + 1), facing, columns="shared"),
        Member(random(*facing.matrix, seed=seed + 2).T, turned(facing), rows="shared", columns="own"),
    ]
    orders = search_orders(members, rounds=2)
    assert_sound(members, orders)
    again = search_orders(members, rounds=2)
    assert all(torch.equal(order, again[name]) for name, order in orders.items())


def test_the_check_notices_a_worse_order_and_a_double_index() -> None:
    members = [Member(torch.kron(random(4, 3, seed=0), random(2, 1, seed=1)), KroneckerShape(4, 3, 2, 1), rows="rows")]
    for order in ([1, 0, 2, 3, 4, 5, 6, 7], [0, 0, 2, 3, 4, 5, 6, 7]):
        with pytest.raises(AssertionError):
            assert_sound(members, {"rows": torch.tensor(order)})


@given(shape=SHAPES, data=st.data(), seed=SEEDS)
@settings(deadline=None, max_examples=50)
def test_gains_add_up(shape: KroneckerShape, data: st.DataObject, seed: int) -> None:
    terms = data.draw(st.integers(1, shape.max_terms))
    side = exchange.Side.of_rows(random(*shape.matrix, seed=seed).double(), shape=shape, terms=terms)

    def energy() -> float:
        return torch.einsum("gfpx,tpx->gft", side.blocks, side.held).square().sum().item()

    slots = exchange._vacate([side], torch.Generator().manual_seed(seed))
    assert side.group[slots].sort().values.tolist() == list(range(max(shape.m1, shape.m2)))
    gains, source, before = side.gains(slots), shuffle(len(slots), seed=seed), energy()
    side.move(slots, slots[source])
    promised = gains[source, torch.arange(len(slots))].sum() - gains.diagonal().sum()
    assert energy() - before == pytest.approx(promised.item(), abs=1e-9)

    slots, mates = (
        exchange._pairs(slots, [side], step=seed, run=len(side.group)) if side.held.shape[1] > 1 else (slots, slots)
    )
    promised, before = side.swap_gains(slots, mates).sum(), energy()
    side.move(torch.cat([slots, mates]), torch.cat([mates, slots]))
    assert energy() - before == pytest.approx(promised.item(), abs=1e-9)


@given(seed=SEEDS, run=st.sampled_from([1, 2, 4, 12]))
@settings(deadline=None, max_examples=3)
def test_an_order_keeps_to_its_segments(seed: int, run: int) -> None:
    shape = KroneckerShape(6, 4, 2, 2)
    members = [Member(random(12, 8, seed=seed), shape, rows="heads", columns="columns")]
    orders = search_orders(members, segments={"heads": run})
    assert torch.equal(orders["heads"] // run, torch.arange(12) // run)
    assert_sound(members, orders)


def test_a_shared_name_serves_all_members() -> None:
    hidden, width = 24, 10
    order = shuffle(hidden, seed=0)
    wide, tall = KroneckerShape(hidden // 2, width, 2, 1), KroneckerShape(width, hidden // 2, 1, 2)
    factors = [torch.kron(random(hidden // 2, width, seed=seed), torch.tensor([[2.0], [1.0]])) for seed in range(3)]
    gate, up, down = factors[0][order], factors[1][order], factors[2][order].T
    members = [Member(gate, wide, rows="hidden"), Member(up, wide, rows="hidden"), Member(down, tall, columns="hidden")]
    assert min(errors(members, identity(members))) > 0.1
    assert max(errors(members, search_orders(members))) < 1e-6


def test_a_member_that_would_lose_bends_the_search() -> None:
    shape = KroneckerShape(8, 8, 2, 1)
    moved = 0
    for seed in range(3):  # the first would gain by pairing rows anew, the second is well paired as it stands
        fixed = torch.kron(random(8, 8, seed=seed), random(2, 1, seed=seed + 100))
        members = [
            Member(random(16, 8, seed=seed + 200), shape, rows="shared"),
            Member(fixed + 0.3 * random(16, 8, seed=seed + 300), shape, rows="shared"),
        ]
        orders = search_orders(members)
        assert_sound(members, orders)
        moved += not torch.equal(orders["shared"], torch.arange(16))
    assert moved


@pytest.mark.parametrize(("right", "seed"), [([[2.0], [1.0]], 0), ([[1.0, 3.0]], 1), ([[3.0, 2.0], [2.0, 1.0]], 2)])
def test_a_permuted_product_is_found_again(right: list[list[float]], seed: int) -> None:
    matrix = torch.kron(random(24, 24, seed=seed), torch.tensor(right))
    matrix = matrix[shuffle(len(matrix), seed=seed)][:, shuffle(matrix.shape[1], seed=seed + 1)]
    shape = KroneckerShape.of_left((matrix.shape[0], matrix.shape[1]), left=(24, 24))
    found = nearest_permuted_kronecker_sum(matrix, shape=shape)
    assert nearest_kronecker_sum(matrix, shape=shape).error > 0.3 * matrix.norm()
    assert found.value.error < 0.1 * matrix.norm()


def test_with_a_small_left_factor_too() -> None:
    matrix = expand(random(1, 2, 3, seed=0).abs(), random(1, 24, 12, seed=1))[shuffle(48, seed=2)]
    shape = KroneckerShape(2, 3, 24, 12)
    found = nearest_permuted_kronecker_sum(matrix, shape=shape, columns=False)
    assert found.value.error < 0.3 * nearest_kronecker_sum(matrix, shape=shape).error


def brute_force(member: Member) -> float:
    rows = itertools.permutations(range(len(member.matrix)))
    return min(errors([member], {"rows": torch.tensor(order)})[0] for order in rows)


@pytest.mark.parametrize(("m2", "n2", "terms"), [(2, 1, 1), (3, 1, 1), (3, 2, 2)])
def test_most_of_the_possible_gain_is_found(m2: int, n2: int, terms: int) -> None:
    shape, shares = KroneckerShape.of_right((6, 4), right=(m2, n2)), []
    for seed in range(3):
        member = Member(random(6, 4, seed=seed), shape, terms=terms, rows="rows")
        (before,), (found,) = errors([member], identity([member])), errors([member], search_orders([member]))
        best = brute_force(member)
        assert best - 1e-9 <= found <= before + 1e-9
        shares.append((before - found) / (before - best))
    assert sum(shares) / len(shares) > 0.5


def distances(matrices: np.ndarray, shape: KroneckerShape, terms: int) -> np.ndarray:
    """How far each matrix is from its nearest sum: the singular values of its rearrangement that are left out."""
    blocks = matrices.reshape(-1, shape.m1, shape.m2, shape.n1, shape.n2).swapaxes(2, 3)
    tall = blocks.reshape(len(matrices), shape.m1 * shape.n1, -1)
    return np.sqrt(np.linalg.eigvalsh(tall.swapaxes(1, 2) @ tall)[:, :-terms].clip(0).sum(1))


def orders_that_differ(groups: int, positions: int) -> list[tuple[int, ...]]:
    """All orders, of which one stands for all that the groups among themselves or the positions in all make of it."""
    orders = (np.array(order).reshape(groups, positions) for order in itertools.permutations(range(groups * positions)))
    firsts = [order for order in orders if order[0, 0] == 0 and sorted(order[0]) == [*order[0]]]
    return [tuple(order.flatten()) for order in firsts if sorted(order[:, 0]) == [*order[:, 0]]]


def after_swaps(matrix: np.ndarray) -> Iterator[np.ndarray]:
    """The matrix after every swap of two of its rows or of its columns."""
    for axis, size in enumerate(matrix.shape):
        for pair in itertools.combinations(range(size), 2):
            order = np.arange(size)
            order[list(pair)] = pair[::-1]
            yield matrix.take(order, axis)


def assert_no_swap_helps(found: PermutedKroneckerSum, matrix: Tensor, *, terms: int) -> None:
    array = matrix.double().numpy()
    array = array if found.row_order is None else array[found.row_order.numpy()]
    array = array if found.column_order is None else array[:, found.column_order.numpy()]
    swapped = distances(np.stack([*after_swaps(array)]), found.value.shape, terms)
    assert found.value.error == pytest.approx(distances(array[None], found.value.shape, terms)[0], rel=1e-6)
    assert swapped.min() > found.value.error * (1 - 1e-6)


def test_small_sums_come_near_to_the_optimum_and_no_swap_helps() -> None:
    shape, ratios = KroneckerShape(2, 3, 3, 2), []
    rows, columns = np.array(orders_that_differ(2, 3)), np.array(orders_that_differ(3, 2))
    assert (len(rows), len(columns)) == (60, 60), "6! / (2! 3!) of either"
    for seed in range(6):
        matrix = random(6, 6, seed=seed)
        found = nearest_permuted_kronecker_sum(matrix, shape=shape, terms=2)
        everything = matrix.double().numpy()[rows[:, None, :, None], columns[None, :, None, :]].reshape(-1, 6, 6)
        ratios.append(found.value.error / distances(everything, shape, 2).min())
        assert_no_swap_helps(found, matrix, terms=2)
    assert min(ratios) > 1 - 1e-6
    assert sum(ratios) / len(ratios) <= 1.05


def by_restarts(matrix: Tensor, shape: KroneckerShape, *, terms: int, restarts: int) -> float:
    """The best of descents by swaps from random orders: what stands for the optimum where that is out of reach."""
    generator, errors = np.random.default_rng(0), []
    for _ in range(restarts):
        now = generator.permutation(generator.permutation(matrix.double().numpy(), axis=0), axis=1)
        error, before = distances(now[None], shape, terms)[0], np.inf
        while error < before * (1 - 1e-9):
            before, candidates = error, np.stack([*after_swaps(now)])
            swapped = distances(candidates, shape, terms)
            if swapped.min() < error:
                error, now = swapped.min(), candidates[swapped.argmin()]
        errors.append(error)
    return min(errors)


@pytest.mark.parametrize("seed", range(2))
def test_no_swap_helps_a_larger_sum(seed: int) -> None:
    matrix, shape = random(48, 16, seed=seed), KroneckerShape(12, 8, 4, 2)
    assert_no_swap_helps(nearest_permuted_kronecker_sum(matrix, shape=shape, terms=4), matrix, terms=4)


@pytest.mark.slow
def test_larger_sums_come_near_to_the_best_of_many_descents() -> None:
    shape, ratios = KroneckerShape(12, 8, 4, 2), []
    for seed in range(30):
        matrix = random(48, 16, seed=seed)
        found = nearest_permuted_kronecker_sum(matrix, shape=shape, terms=4)
        assert_no_swap_helps(found, matrix, terms=4)
        ratios.append(found.value.error / by_restarts(matrix, shape, terms=4, restarts=10))
    assert sum(ratios) / len(ratios) <= 1.05


@pytest.mark.parametrize(
    ("dtype", "rows", "columns"),
    [(torch.float64, True, False), (torch.float32, True, True), (torch.bfloat16, False, True)],
)
def test_the_sum_stands_for_the_reordered_matrix(dtype: torch.dtype, rows: bool, columns: bool) -> None:
    matrix, shape = random(24, 20, seed=0).to(dtype), KroneckerShape(12, 10, 2, 2)
    found = nearest_permuted_kronecker_sum(matrix, shape=shape, terms=2, rows=rows, columns=columns)
    assert (found.row_order is not None, found.column_order is not None) == (rows, columns)
    assert found.value.left.dtype == dtype
    target = matrix if found.row_order is None else matrix[found.row_order]
    target = target if found.column_order is None else target[:, found.column_order]
    distance = (target.double() - found.value.to_dense().double()).norm().item()
    assert distance == pytest.approx(found.value.error, rel=1e-2 if dtype == torch.bfloat16 else 1e-5)
    assert found.value.error < 0.9 * nearest_kronecker_sum(matrix, shape=shape, terms=2).error


@pytest.mark.parametrize(
    ("shape", "terms"),
    [
        (KroneckerShape(6, 4, 1, 1), 1),
        (KroneckerShape(1, 1, 6, 4), 1),
        (KroneckerShape(6, 1, 1, 4), 2),
        (KroneckerShape(3, 2, 2, 2), 4),
    ],
)
def test_what_cannot_matter_stays(shape: KroneckerShape, terms: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange.Side, "of_rows", None)  # no search is begun
    found = nearest_permuted_kronecker_sum(random(6, 4, seed=0), shape=shape, terms=terms)
    assert found.row_order is None
    assert found.column_order is None


@pytest.mark.parametrize(
    "make",
    [lambda: torch.zeros(8, 6), lambda: torch.ones(8, 6), lambda: torch.kron(random(4, 3, seed=0), torch.ones(2, 2))],
    ids=["zeros", "ones", "exact"],
)
def test_where_nothing_is_gained_nothing_moves(make: Callable[[], Tensor]) -> None:
    found = nearest_permuted_kronecker_sum(make(), shape=KroneckerShape(4, 3, 2, 2))
    assert found.row_order is None
    assert found.column_order is None


def test_a_small_scale_changes_nothing() -> None:
    matrix, shape = random(16, 12, seed=0), KroneckerShape(8, 6, 2, 2)
    found = nearest_permuted_kronecker_sum(matrix, shape=shape)
    scaled = nearest_permuted_kronecker_sum(matrix * 2.0**-60, shape=shape)
    assert scaled.value.error == pytest.approx(found.value.error * 2.0**-60)


def test_many_slots_are_vacated_share_by_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "_LARGEST", 5)
    members = [Member(random(32, 12, seed=0), KroneckerShape(16, 6, 2, 2), rows="rows", columns="columns")]
    orders = search_orders(members)
    assert_sound(members, orders)
    assert errors(members, orders)[0] < 0.9 * errors(members, identity(members))[0]


def test_contradictions_are_refused() -> None:
    square = Member(random(4, 4, seed=0), KroneckerShape(2, 2, 2, 2), rows="a", columns="b")
    with pytest.raises(KronpressError, match="'a' names the rows and the columns of one member; give them two names"):
        search_orders([Member(square.matrix, square.shape, rows="a", columns="a")])
    with pytest.raises(KronpressError, match="'a' permutes 4 indices of one member and 6 of another"):
        search_orders([square, Member(random(6, 4, seed=0), KroneckerShape(3, 2, 2, 2), rows="a")])
    with pytest.raises(KronpressError, match="no member has a permutation 'heads'; there is a, b"):
        search_orders([square], segments={"heads": 2})
    for length in (0, 3):
        with pytest.raises(KronpressError, match=f"segments of {length} do not divide the 4 indices of 'a'"):
            search_orders([square], segments={"a": length})
    shape = KroneckerShape(m1=3, n1=2, m2=2, n2=2)
    with pytest.raises(KronpressError, match=re.escape("make a (6, 4) matrix, not (4, 4)")):
        nearest_permuted_kronecker_sum(square.matrix, shape=shape)
    with pytest.raises(KronpressError, match="terms is 5"):
        nearest_permuted_kronecker_sum(square.matrix, shape=square.shape, terms=5)
