from __future__ import annotations

from kronpress.tasks import Example, without


def example(first: str, second: str | None = None) -> Example:
    return Example(first, second, None, "")


def test_examples_are_the_same_by_letters_and_digits_in_any_order() -> None:
    held_out = [example("It 's 3 o'clock .", "No!"), example("Straße")]
    same = [example("no", "It's 3 o'clock"), example("its 3 oclock", "NO"), example("STRASSE?")]
    other = [example("It's 4 o'clock", "No"), example("It's 3 o'clock"), example("No", "no"), example("")]
    assert without([*same, *other], held_out) == other
    assert without(same, []) == same
