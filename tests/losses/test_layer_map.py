from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kronpress.errors import KronpressError
from kronpress.losses import LOSSES
from kronpress.losses.layer_map import LayerMap, pairs_of
from kronpress.validation import parse


@pytest.mark.parametrize(
    ("layers", "depths", "expected"),
    [
        ("same", (2, 2), [(0, 0), (1, 1)]),
        ("last", (2, 5), [(1, 4)]),
        ("uniform", (3, 12), [(0, 3), (1, 7), (2, 11)]),
        ("uniform", (3, 4), [(0, 1), (1, 2), (2, 3)]),
        ("uniform", (4, 2), [(0, 0), (1, 0), (2, 1), (3, 1)]),
        ((1, 4), (2, 5), [(0, 1), (1, 4)]),
        (((1, 0), (0, 3)), (2, 5), [(1, 0), (0, 3)]),
    ],
    ids=str,
)
def test_the_pairs(layers: LayerMap, depths: tuple[int, int], expected: list[tuple[int, int]]) -> None:
    assert pairs_of(layers, *depths, loss="hidden") == expected


@given(student=st.integers(1, 30), teacher=st.integers(1, 30))
def test_uniform_rises_to_the_last_block(student: int, teacher: int) -> None:
    pairs = pairs_of("uniform", student, teacher, loss="hidden")
    theirs = [block for _, block in pairs]
    assert [block for block, _ in pairs] == list(range(student))
    assert theirs == sorted(theirs)
    assert theirs[-1] == teacher - 1
    assert min(theirs) >= 0
    if student == teacher:
        assert pairs == pairs_of("same", student, teacher, loss="hidden")
    if student <= teacher:
        assert len(set(theirs)) == student


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("same", "layers of the loss 'pkd' is 'same', but the student has 2 blocks and the teacher 4; set layers to"),
        ((1,), "names 1 blocks of the teacher, but the student has 2; give one for each"),
        ((), "names 0 blocks of the teacher, but the student has 2"),
        ((1, 4), "names block 4 of the teacher, which has 4; choose from 0 to 3"),
        ((-1, 3), "names block -1 of the teacher"),
        (((2, 3),), "names block 2 of the student, which has 2; choose from 0 to 1"),
    ],
    ids=str,
)
def test_a_map_that_does_not_fit_is_refused(layers: LayerMap, message: str) -> None:
    with pytest.raises(KronpressError, match=message):
        pairs_of(layers, 2, 4, loss="pkd")


@pytest.mark.parametrize(("given", "kept"), [([0, 1], (0, 1)), ([[0, 1]], ((0, 1),)), ("uniform", "uniform")], ids=str)
def test_a_recipe_gives_lists(given: Any, kept: LayerMap) -> None:
    assert LOSSES["hidden"].model_validate({"layers": given}).layers == kept


@pytest.mark.parametrize("layers", ["all", 3, [0.5], [[1, 2, 3]]], ids=str)
def test_what_is_no_map_is_refused(layers: Any) -> None:
    with pytest.raises(KronpressError, match=r"losses\.hidden: layers"):
        parse(LOSSES["hidden"], {"layers": layers}, place="losses.hidden")
