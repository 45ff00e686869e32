"""Metrics of classes and numbers, in percent; degenerate input has a defined value and gives no warning."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float

from kronpress.errors import KronpressError

Numbers: TypeAlias = Float[np.ndarray, " examples"]
"""One class index or number for each example, in double precision."""


def accuracy(gold: Numbers, predicted: Numbers) -> float:
    """Return the share of answers that are right.

    >>> accuracy(np.array([0.0, 1.0, 2.0, 2.0]), np.array([0.0, 1.0, 2.0, 1.0]))
    75.0
    """
    return 100 * float(np.mean(gold == predicted))


def f1(gold: Numbers, predicted: Numbers) -> float:
    """Return the harmonic mean of precision and recall of class 1; 0 where nothing is, or is called, of class 1.

    Raises:
        KronpressError: scikit-learn is not installed.
    """
    return 100 * float(_scikit_learn("f1").f1_score(gold == 1, predicted == 1, zero_division=0))


def matthews(gold: Numbers, predicted: Numbers) -> float:
    """Return Matthews' correlation of classes, two or more; 0 where either side is all one class.

    Raises:
        KronpressError: scikit-learn is not installed.
    """
    metrics = _scikit_learn("matthews")
    if np.ptp(gold) == 0 or np.ptp(predicted) == 0:
        return 0.0
    return 100 * float(metrics.matthews_corrcoef(gold, predicted))


def pearson(gold: Numbers, predicted: Numbers) -> float:
    """Return Pearson's linear correlation; 0 where either side is constant, as GLUE counts what is not a number."""
    if np.ptp(gold) == 0 or np.ptp(predicted) == 0:
        return 0.0
    return 100 * float(np.clip(_direction(gold) @ _direction(predicted), -1, 1))


def spearman(gold: Numbers, predicted: Numbers) -> float:
    """Return Spearman's correlation of ranks, equal values at their average rank; 0 where either side is constant."""
    from scipy.stats import rankdata

    return pearson(rankdata(gold), rankdata(predicted))


METRICS: Mapping[str, Callable[[Numbers, Numbers], float]] = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
}


def _direction(values: Numbers) -> Numbers:
    """Center the values and scale them to length one; large and tiny ones are scaled first, so that squares fit."""
    scaled = values / np.max(np.abs(values))
    centered: Numbers = scaled - np.mean(scaled)
    direction: Numbers = centered / np.linalg.norm(centered)
    return direction


def _scikit_learn(metric: str) -> Any:
    try:
        return importlib.import_module("sklearn.metrics")
    except ImportError:
        raise KronpressError(f"the metric '{metric}' needs scikit-learn; pip install scikit-learn") from None
