"""Exact match and F1 of short answers, and when to give none (Rajpurkar et al., 2016; 2018)."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Threshold:
    """A null-score difference above which no answer is given, and the mean score with it."""

    value: float
    score: float


def normalize(text: str) -> str:
    """Return what of an answer is compared: lowercase words without ASCII punctuation and English articles.

    >>> normalize("The  U.S.   dollar, a currency")
    'us dollar currency'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def exact_match(answer: str, gold: Sequence[str], *, unanswerable: bool = False) -> float:
    """Return 100 where the answer equals one of `gold` after normalization, else 0.

    `unanswerable` scores as version 2.0 does: gold answers of which normalization leaves nothing are dropped, and an
    empty answer is right where there is none left. Version 1.1 compares with them all.
    """
    return 100.0 * (normalize(answer) in _meant(gold, unanswerable))


def f1(answer: str, gold: Sequence[str], *, unanswerable: bool = False) -> float:
    """Return the F1 in percent of the answer's words, as a bag, against the most similar of `gold`.

    It is 0 where no word is shared, but in version 2.0 (`unanswerable`, see `exact_match`) 100 where both are empty.
    """
    words = normalize(answer).split()
    return 100.0 * max(_overlap(words, each.split(), unanswerable) for each in _meant(gold, unanswerable))


def qualities(
    answers: Sequence[str], golds: Sequence[Sequence[str]], *, unanswerable: bool
) -> dict[str, Float[np.ndarray, " questions"]]:
    """Return `em` and `f1` of each answer, in percent; every question of version 1.1 has some gold answer."""
    pairs = list(zip(answers, golds, strict=True))
    return {
        "em": np.array([exact_match(answer, gold, unanswerable=unanswerable) for answer, gold in pairs]),
        "f1": np.array([f1(answer, gold, unanswerable=unanswerable) for answer, gold in pairs]),
    }


def breakdown(
    scores: Float[np.ndarray, " questions"], impossible: Bool[np.ndarray, " questions"], *, name: str
) -> dict[str, float]:
    """Return the mean over the questions with an answer and over those without, where there are any."""
    parts = {f"has_answer_{name}": scores[~impossible], f"no_answer_{name}": scores[impossible]}
    return {part: float(values.mean()) for part, values in parts.items() if values.size}


def best_threshold(
    answered: Float[np.ndarray, " questions"],
    silent: Float[np.ndarray, " questions"],
    *,
    gaps: Float[np.ndarray, " questions"],
) -> Threshold:
    """Return the threshold with the best mean score.

    A question scores `silent` where its null-score difference, its gap, is above the threshold, else `answered`. The
    gaps are sorted once, O(n log n), and only the gaps themselves, and one value below them all, are tried.
    """
    order = np.argsort(gaps, kind="stable")
    ascending = gaps[order]
    thresholds = np.concatenate([[np.nextafter(ascending[0], -np.inf)], ascending])
    totals = silent.sum() + np.concatenate([[0.0], np.cumsum((answered - silent)[order])])
    apart = np.append(thresholds[:-1] != thresholds[1:], True)  # equal gaps fall on the same side
    best = int(np.argmax(np.where(apart, totals, -np.inf)))
    return Threshold(float(thresholds[best]), float(totals[best] / len(gaps)))


def _meant(gold: Sequence[str], unanswerable: bool) -> list[str]:
    """Normalize the gold answers that count."""
    found = [normalize(each) for each in gold]
    return [each for each in found if each] or [""] if unanswerable else found


def _overlap(words: list[str], gold: list[str], unanswerable: bool) -> float:
    if not words or not gold:
        return float(unanswerable and words == gold)
    return 2 * (Counter(words) & Counter(gold)).total() / (len(words) + len(gold))
