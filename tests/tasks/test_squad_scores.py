from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kronpress.tasks.squad_scores import best_threshold, breakdown, exact_match, f1, normalize, qualities


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The  U.S.A.\tand\n a Dog", "usa and dog"),
        ("another theory", "another theory"),  # articles are whole words
        ("the-end", "theend"),  # punctuation goes first, so no article is left standing free
        ("a.", ""),
        ("An 'A' the", ""),
        ("ÉCOLE “a” – naïve", "école “ ” – naïve"),  # only ASCII punctuation goes; no accent does
        ("The 元朝", "元朝"),
        ("$1,000.50!", "100050"),
        ("", ""),
    ],
)
def test_normalization(text: str, wanted: str) -> None:
    assert normalize(text) == wanted


BOTH = [
    ("the Eiffel Tower!", ["Eiffel tower"], 100, 1),
    ("Eiffel", ["Eiffel Tower"], 0, 2 / 3),
    ("in Paris, France", ["Paris"], 0, 0.5),
    ("Rome", ["Paris"], 0, 0),
    ("to be or to be", ["to be"], 0, 2 * (2 / 5) * 1 / (2 / 5 + 1)),  # a word counts as often as in both
    ("to to", ["to to be"], 0, 2 * 1 * (2 / 3) / (1 + 2 / 3)),
    ("be to", ["to be"], 0, 1),  # a bag has no order
    ("b c", ["x", "b", "b c d", "b c"], 100, 1),  # the most similar
    ("b c", ["x", "b c d"], 0, 0.8),
    ("", ["word"], 0, 0),
    ("word", ["the"], 0, 0),
    ("STRASSE", ["straße"], 0, 0),  # lower case, not folded
]
VERSION_1 = [
    (",", [".", "x"], 100, 0),  # a gold answer that nothing is left of is compared with as any other
    ("the", ["A"], 100, 0),  # but shares no word
    ("", ["the", "!"], 100, 0),
    ("x", [".", "x"], 100, 1),
]
VERSION_2 = [
    ("", [], 100, 1),  # no answer
    ("the", [], 100, 1),  # nothing is left of it
    ("word", [], 0, 0),
    (",", [".", "x"], 0, 0),  # the gold answer that nothing is left of does not count beside another
    ("", ["the", "word"], 0, 0),
    ("", ["the", "!"], 100, 1),
    ("the", ["A"], 100, 1),
]


@pytest.mark.parametrize(("answer", "gold", "em", "overlap"), BOTH + VERSION_1)
def test_exact_match_and_f1_of_version_1(answer: str, gold: list[str], em: float, overlap: float) -> None:
    assert exact_match(answer, gold) == em
    assert f1(answer, gold) == pytest.approx(100 * overlap)


@pytest.mark.parametrize(("answer", "gold", "em", "overlap"), BOTH + VERSION_2)
def test_exact_match_and_f1_of_version_2(answer: str, gold: list[str], em: float, overlap: float) -> None:
    assert exact_match(answer, gold, unanswerable=True) == em
    assert f1(answer, gold, unanswerable=True) == pytest.approx(100 * overlap)


def test_the_order_of_gold_answers_is_no_matter() -> None:
    gold = ["b c d", "b", "x"]
    assert f1("b c", gold) == f1("b c", gold[::-1]) == pytest.approx(80)


def test_qualities_of_several() -> None:
    for unanswerable, empty in ((False, 0), (True, 100)):
        found = qualities(["Paris", "a b c", "!"], [["paris"], ["b"], ["the"]], unanswerable=unanswerable)
        assert found["em"].tolist() == [100, 0, 100]
        assert found["f1"].tolist() == pytest.approx([100, 200 / 3, empty])


def test_breakdown_leaves_out_what_there_is_not() -> None:
    scores = np.array([100.0, 0.0, 50.0])
    assert breakdown(scores, np.array([True, False, False]), name="f1") == {"has_answer_f1": 25, "no_answer_f1": 100}
    assert breakdown(scores, np.array([False] * 3), name="f1") == {"has_answer_f1": 50}


def test_best_threshold_by_hand() -> None:
    answered, silent = np.array([100.0, 0.0, 80.0]), np.array([0.0, 100.0, 0.0])
    found = best_threshold(answered, silent, gaps=np.array([-3.0, 4.0, 1.5]))
    assert (found.value, found.score) == (1.5, pytest.approx(280 / 3))


def test_no_answer_at_all_may_be_best() -> None:
    found = best_threshold(np.zeros(2), np.full(2, 100.0), gaps=np.array([-7.0, 3.0]))
    assert found.score == 100
    assert found.value < -7


def test_equal_gaps_are_on_the_same_side() -> None:
    found = best_threshold(np.array([100.0, 0.0]), np.array([0.0, 100.0]), gaps=np.array([2.0, 2.0]))
    assert found.score == 50


@given(st.lists(st.tuples(*[st.sampled_from([0.0, 25.0, 100.0])] * 2, st.integers(-3, 3)), min_size=1, max_size=12))
def test_best_threshold_equals_trying_them_all(rows: list[tuple[float, float, int]]) -> None:
    answered, silent, gaps = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    found = best_threshold(answered, silent, gaps=gaps)
    tried = [np.where(gaps > value, silent, answered).mean() for value in np.arange(-4, 4)]
    assert found.score == pytest.approx(max(tried))
    assert np.where(gaps > found.value, silent, answered).mean() == pytest.approx(found.score), "it is reached"
