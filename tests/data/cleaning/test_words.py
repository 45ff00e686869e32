"""Words as numbers: the same as what a loop over the text finds."""

from __future__ import annotations

import re

import numpy as np
import pytest

from kronpress.data.cleaning.words import LONGEST, Words, words_of

TEXTS = ["One two, three! Two-three one.", "", "…", "naïve “Ünïcode” – 12 cafés", "it’s «quoted»\u00a0text", "a b"]


def plain(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def names(words: Words) -> list[list[int]]:
    """Return the hashes of each document."""
    return [chunk.tolist() for chunk in np.split(words.hashes, words.bounds[1:-1])]


def test_equal_words_have_equal_numbers_and_different_ones_have_not() -> None:
    numbers = names(words_of(TEXTS))
    pairs = [pair for text, row in zip(TEXTS, numbers, strict=True) for pair in zip(plain(text), row, strict=True)]
    assert len({word for word, _ in pairs}) == len({number for _, number in pairs}) == len(set(pairs))


def test_a_word_has_the_same_number_wherever_it_stands() -> None:
    together, alone = names(words_of(["x" * 1000, *TEXTS])), [names(words_of([text]))[0] for text in TEXTS]
    assert together[1:] == alone


def test_characters_of_scripts_without_spaces_are_words() -> None:
    assert words_of(["漢字。かな", "हिन्दी भाषा"]).counts.tolist() == [4, 2]


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_shingles_are_runs_of_words_within_a_document(size: int) -> None:
    runs = [
        [" ".join(words[start : start + size]) for start in range(max(1, len(words) - size + 1))] if words else []
        for words in map(plain, [*TEXTS, "one two three one two three"])
    ]
    shingles = words_of([*TEXTS, "one two three one two three"]).shingles(size)
    assert shingles.counts.tolist() == [len(row) for row in runs]
    assert shingles.distinct().counts.tolist() == [len(set(row)) for row in runs]
    assert shingles.most_frequent().tolist() == [max(map(row.count, row), default=0) for row in runs]


def test_some_documents_are_taken_out() -> None:
    words = words_of(TEXTS)
    keep = np.array([True, False, True, False, False, True])
    assert names(words.where(keep)) == [row for row, stays in zip(names(words), keep, strict=True) if stays]


def test_no_more_of_a_long_document_is_looked_at() -> None:
    assert words_of(["ab " * LONGEST]).counts.tolist() == [-(-LONGEST // 3)]
