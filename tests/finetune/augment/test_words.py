"""Which words may be replaced."""

from __future__ import annotations

import pytest

from kronpress.finetune.augment.words import Word, replaceable, replaced


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("the sea and the sky", ["sea", "sky"]),
        ("The SEA isn't not I, 2nd x 1999 snake_case b2b", ["SEA"]),
        ("well-known: Käse (straße)!", ["well", "known", "Käse", "straße"]),
    ],
)
def test_stop_words_numbers_and_signs_stay(text: str, words: list[str]) -> None:
    assert [str(word) for word in replaceable(text)] == words


def test_all_but_the_words_stays_as_it_is() -> None:
    text = "Sea,  sea  and\tsea!"
    first, _, last = replaceable(text)
    assert replaced(text, {first: "a", last: "longer"}) == "a,  sea  and\tlonger!"
    assert replaced(text, {}) == text
    assert Word(text, 0, 3) == first != Word(text, 5, 8)
