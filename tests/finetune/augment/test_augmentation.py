"""Copies of examples with words replaced: how many, how they differ, and what is kept of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kronpress.finetune.augment import Augment, Augmentation
from kronpress.finetune.augment.word_source import WholeWords
from kronpress.finetune.augment.words import Word
from kronpress.tasks import Example
from tests.finetune.words import word_tokenizer
from tests.tiny import tiny_bert

SINGLE = [Example("The moon, and 2nd: sea!", None, 1.0, "0"), Example("is it?", None, 0.0, "1", "group")]
PAIR = [Example("sun moon star", "sky sea tree", 2.5, "0")]


class Offering:
    """Offers the same words for some, and none for others; counts how often it was asked."""

    vocabulary = WholeWords((), ())

    def __init__(self, offers: dict[str, tuple[str, ...]]) -> None:
        self.offered, self.asked = offers, 0

    def digest(self) -> str:
        return repr(self.offered)

    def offers(self, words: Sequence[Word], *, count: int) -> list[tuple[str, ...]]:
        self.asked += 1
        return [self.offered.get(str(word), ())[:count] for word in words]


def augmentation(*sources: Offering, seed: int = 0, **options: float) -> Augmentation:
    return Augmentation(Augment.model_validate(options), sources, seed)


def of_table(seed: int = 0, **options: float) -> Augmentation:
    given = Augment.model_validate({"candidates": 5, **options})
    return Augmentation.of(given, tiny_bert(), word_tokenizer(), seed=seed, device=torch.device("cpu"))


def test_copies_differ_from_their_example_and_from_one_another_and_keep_all_else() -> None:
    copies = list(of_table(copies=20).copies(SINGLE))
    texts = [copy.first for copy in copies]
    assert 5 < len(copies) <= 20 and len({*texts, SINGLE[0].first}) == len(copies) + 1
    for copy in copies:
        assert replace(copy, first="") == replace(SINGLE[0], first=""), "the other has no word to replace"
        assert copy.first.startswith("The ") and ", and 2nd: " in copy.first and copy.first.endswith("!")


def test_the_seed_alone_decides() -> None:
    one, same, other = (list(of_table(seed).copies(SINGLE)) for seed in (0, 0, 1))
    assert one == same != other


def test_each_copy_of_a_pair_changes_one_text_in_turn() -> None:
    copies = list(of_table(copies=6, probability=1).copies(PAIR))
    changed = [(copy.first != PAIR[0].first, copy.second != PAIR[0].second) for copy in copies]
    assert changed == [(True, False), (False, True)] * 3
    for copy in copies:
        texts = zip((copy.first, copy.second or ""), ("sun moon star", "sky sea tree"), strict=True)
        changes = [sum(a != b for a, b in zip(new.split(), old.split(), strict=True)) for new, old in texts]
        assert sorted(changes) == [0, 3]


def test_words_are_replaced_as_often_as_asked_for() -> None:
    examples = [Example("sun " * 50, None, 0.0, str(row)) for row in range(40)]
    source = Offering({"sun": ("moon", "star", "sky", "sea")})
    copies = list(augmentation(source, copies=1, probability=0.4).copies(examples))
    words = [word for copy in copies for word in copy.first.split()]
    assert len(words) == 2000 and sum(word != "sun" for word in words) / 2000 == pytest.approx(0.4, abs=0.03)
    for other in ("moon", "star", "sky", "sea"):
        assert words.count(other) / 2000 == pytest.approx(0.1, abs=0.03)


def test_the_second_source_is_asked_for_what_the_first_has_not() -> None:
    first, second = Offering({"sun": ("one",)}), Offering({"sun": ("never",), "moon": ("two",)})
    example = Example("sun moon tree", None, 0.0, "0")
    (copy,) = augmentation(first, second, copies=3, probability=1).copies([example])
    assert copy.first == "one two tree"


def test_copies_are_made_once_and_read_again(tmp_path: Path) -> None:
    source, file = Offering({"moon": ("sun", "star"), "sea": ("lake",)}), tmp_path / "below" / "copies.jsonl"
    made = augmentation(source).augmented(SINGLE, unseen=[], file=file)
    assert made.examples and source.asked == 1
    content = file.read_bytes()
    assert augmentation(source).augmented(SINGLE, unseen=[], file=file) == made and source.asked == 1
    for damage in (content[:-5], content.replace(b"lake", b"hill", 1), b"", b"[]\n", b"\xff\n"):
        file.write_bytes(damage)
        assert augmentation(source).augmented(SINGLE, unseen=[], file=file) == made
        assert file.read_bytes() == content
    others = [
        augmentation(source, copies=19).augmented(SINGLE, unseen=[], file=file),
        augmentation(source, seed=1).augmented(SINGLE, unseen=[], file=file),
        augmentation(source).augmented(SINGLE[:1], unseen=[], file=file),
        augmentation(source).augmented(SINGLE, unseen=PAIR, file=file),
        augmentation(Offering({"moon": ("hill",)})).augmented(SINGLE, unseen=[], file=file),
    ]
    assert len({made.fingerprint, *(other.fingerprint for other in others)}) == 6


def test_what_models_are_scored_on_is_never_made(tmp_path: Path) -> None:
    source = Offering({"moon": ("sun", "star")})
    unseen = [Example("the SUN and 2nd sea", None, 0.0, "dev")]
    texts = [
        {copy.first for copy in augmentation(source).augmented(SINGLE, unseen=held, file=tmp_path / "file").examples}
        for held in ([], unseen)
    ]
    assert texts[0] - texts[1] == {"The sun, and 2nd: sea!"} and texts[1]
