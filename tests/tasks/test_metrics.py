"""Metrics against values worked out by hand and against other programs, and their values where nothing is defined."""

from __future__ import annotations

import importlib
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from kronpress.errors import KronpressError
from kronpress.tasks import METRICS

GOLD = np.array([1.0, 1, 1, 1, 0, 0, 0, 0, 0, 0])
PREDICTED = np.array([1.0, 1, 1, 0, 1, 0, 0, 0, 0, 0])  # 3 true and 1 false positive, 1 false and 5 true negatives
VALUES = st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=2, max_size=30)


@pytest.mark.parametrize(
    ("metric", "wanted"),
    [("accuracy", 80.0), ("f1", 75.0), ("matthews", 100 * (3 * 5 - 1) / np.sqrt(4 * 4 * 6 * 6))],
)
def test_two_classes_by_hand(metric: str, wanted: float) -> None:
    assert METRICS[metric](GOLD, PREDICTED) == pytest.approx(wanted)


def test_correlations_by_hand() -> None:
    gold, predicted = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 4.0, 9.0, 16.0])
    assert METRICS["spearman"](gold, predicted) == pytest.approx(100)
    assert METRICS["pearson"](gold, predicted) == pytest.approx(100 * 25 / np.sqrt(5 * 129))
    assert METRICS["pearson"](gold, -gold) == pytest.approx(-100)


def test_equal_values_share_their_average_rank() -> None:
    gold, predicted = np.array([1.0, 2.0, 3.0, 4.0]), np.array([5.0, 5.0, 6.0, 7.0])  # ranks 1.5 1.5 3 4
    assert METRICS["spearman"](gold, predicted) == pytest.approx(100 * 4.5 / np.sqrt(5 * 4.5))


def test_matthews_of_three_classes() -> None:
    gold, predicted = np.array([0.0, 0, 1, 1, 2, 2]), np.array([0.0, 1, 1, 1, 2, 0])
    # Gorodkin's form: (correct·n - Σ gold·predicted) / √(n² - Σ gold²)(n² - Σ predicted²)
    assert METRICS["matthews"](gold, predicted) == pytest.approx(100 * (4 * 6 - 12) / np.sqrt((36 - 12) * (36 - 14)))


@given(VALUES)
def test_correlations_are_those_of_scipy(pairs: list[tuple[int, int]]) -> None:
    gold, predicted = np.array(pairs, dtype=np.float64).T
    constant = np.ptp(gold) == 0 or np.ptp(predicted) == 0
    for metric, reference in (("pearson", scipy.stats.pearsonr), ("spearman", scipy.stats.spearmanr)):
        wanted = 0.0 if constant else 100 * reference(gold, predicted).statistic
        assert METRICS[metric](gold, predicted) == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("constant", [0.0, 1.0])
@pytest.mark.parametrize("metric", ["matthews", "pearson", "spearman"])
def test_a_constant_side_correlates_with_nothing(metric: str, constant: float) -> None:
    flat = np.full_like(GOLD, constant)
    for gold, predicted in ((GOLD, flat), (flat, GOLD), (flat, flat)):
        assert METRICS[metric](gold, predicted) == 0.0


@pytest.mark.parametrize("scale", [1e-300, 1e-3, 1e300])
def test_correlations_do_not_depend_on_the_scale(scale: float) -> None:
    gold = np.array([1.0, 2.0, 4.0])
    assert METRICS["pearson"](gold, gold * scale) == pytest.approx(100)


def test_f1_is_zero_where_class_1_is_nowhere() -> None:
    zeros = np.zeros_like(GOLD)
    assert METRICS["f1"](zeros, zeros) == METRICS["f1"](GOLD, zeros) == METRICS["f1"](zeros, GOLD) == 0.0


@pytest.mark.parametrize("metric", ["f1", "matthews"])
def test_without_scikit_learn_the_extra_is_named(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    with pytest.raises(KronpressError, match=rf"'{metric}' needs scikit-learn; pip install scikit-learn"):
        METRICS[metric](GOLD, PREDICTED)
    monkeypatch.undo()
    assert importlib.import_module("sklearn.metrics")


def test_scikit_learn_is_not_imported_with_the_package() -> None:
    code = "import sys, kronpress, kronpress.tasks; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
