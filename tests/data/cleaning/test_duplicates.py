"""Which documents the rules take for duplicates."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kronpress.data.cleaning import Batch, Cleaning, Document, MinHash, clean, compared, near
from kronpress.data.cleaning.duplicates import study_key
from kronpress.errors import KronpressError
from kronpress.records import CleaningReport
from kronpress.validation import parse
from tests.data.cleaning.text import changed, filled, moved, prose, stayed


def similarity(one: str, other: str) -> float:
    """Return the Jaccard similarity of the runs of three words."""
    sets = []
    for text in (one, other):
        words = re.findall(r"\w+", text.lower())
        sets.append({tuple(words[start : start + 3]) for start in range(len(words) - 2)})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def cleaned(texts: list[str], folder: Path, **settings: Any) -> tuple[list[str], CleaningReport]:
    """Clean documents of plain text; return those that stay and the report."""
    (folder / "text.txt").write_text("\n\n".join(texts) + "\n", encoding="utf-8")
    report = clean(str(folder / "text.txt"), Cleaning(**settings), folder / "out")
    return stayed(folder / "out"), report


def test_the_key_of_the_short_study_collides() -> None:
    one = "The mayor said on Monday that the bridge is safe, as everybody in town knows."
    other = "The mayor said on Sunday that the budget is lost, as everybody in town knows."
    assert study_key(one) == study_key(other)
    assert similarity(one, other) < 0.4
    assert study_key(one) != study_key(one.replace("Monday", "Tuesday")), "one letter more, and it is another"


@pytest.mark.parametrize("rule", ["none", "exact", "short_study", "minhash"])
def test_what_each_rule_drops(rule: str, tmp_path: Path) -> None:
    first, second = prose(2)
    texts = [first, second, first, first.upper(), "Yes.", f" {second}", "Yes."]
    kept, _ = cleaned(texts, tmp_path, duplicates=rule)
    expected = {"none": texts, "exact": [*texts[:2], texts[3], "Yes.", "Yes."]}
    expected |= {"short_study": [*texts[:2], texts[3], "Yes.", f" {second}"], "minhash": [*texts[:2], "Yes.", "Yes."]}
    assert kept == expected[rule]


def test_near_duplicates_go_and_others_stay(tmp_path: Path) -> None:
    draw = random.Random(1)
    originals = prose(300)
    copies = [changed(text, draw) if number % 2 else moved(text) for number, text in enumerate(originals[:150])]
    others = prose(300, seed=1)
    halves = [f"{one[:200]} {other[200:]}" for one, other in zip(originals, others, strict=True)]
    similar = [similarity(one, other) >= 0.8 for one, other in zip(originals, copies, strict=False)]
    kept, report = cleaned([*originals, *copies, *halves], tmp_path)
    expected = [*originals, *(copy for copy, near in zip(copies, similar, strict=True) if not near), *halves]
    assert sum(similar) > 100
    assert kept == expected, "the first stays, exactly those go that are similar, and the order is kept"
    assert [(row.reason, row.documents) for row in report.went] == [("near duplicate", sum(similar))]


def test_a_document_goes_only_if_one_like_it_stays(tmp_path: Path) -> None:
    words = prose(1, words=100)[0].split()
    chain = [" ".join(words[start : start + 50]) for start in (0, 5, 10)]
    likeness = [similarity(chain[0], chain[1]), similarity(chain[1], chain[2]), similarity(chain[0], chain[2])]
    assert likeness[0] >= 0.75 and likeness[1] >= 0.75 > likeness[2]
    kept, _ = cleaned([*chain, chain[1]], tmp_path, duplicates={"name": "minhash", "threshold": 0.75})
    assert kept == [chain[0], chain[2]], "the second went for the first, so the third has no reason to go"


def test_similarities_are_exact_whatever_fits_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(2)
    originals = prose(40)
    texts = [*originals, *(changed(text, draw) for text in originals), *originals[:7]]
    whole = cleaned(texts, tmp_path)
    monkeypatch.setattr(compared, "AT_ONCE", 20)
    monkeypatch.setattr(near, "BLOCK", 7)
    (tmp_path / "again").mkdir()
    again = cleaned(texts, tmp_path / "again", shard_megabytes=0.004)
    assert len(again[1].shards) > 3
    assert again[0] == whole[0] and again[1].went == whole[1].went


@pytest.mark.parametrize("threshold", [0.5, 0.8, 1.0])
def test_similarities_are_exact(threshold: float) -> None:
    draw = np.random.default_rng(0)
    sets = [np.unique(draw.integers(40, size=20)).astype(np.uint32) for _ in range(50)]
    sets += [np.array([3, 5], np.uint32), np.array([3, 5 + 2**16], np.uint32), np.zeros(0, np.uint32), sets[7]]
    for one in sets:
        shares = [len({*one} & {*other}) / max(1, len({*one} | {*other})) for other in sets]
        expected = [index for index, share in enumerate(shares) if share >= threshold]
        assert list(near.similar(one, sets, threshold=threshold)) == expected


def test_of_texts_that_fill_a_form_none_stays_that_is_similar_to_an_earlier_one(tmp_path: Path) -> None:
    texts = filled(200)
    kept, report = cleaned(texts, tmp_path)
    expected: list[str] = []
    for text in texts:
        if all(similarity(text, earlier) < 0.8 for earlier in expected):
            expected.append(text)
    assert 40 < len(expected) < 100
    assert kept == expected, "as if each was compared with all that stay before it"
    assert report.went[-1].reason == "near duplicate"


def test_a_document_is_compared_with_the_latest_that_agree() -> None:
    bands = [np.array([range(5), [0] * 5], np.uint32), np.array([[0, 3, 4], [0, 1, 0]], np.uint32)]
    leaders = near.Leaders(bands, most=2)
    runs = {document: numbers for start in (0, 2, 4) for document, numbers in leaders.runs(start, start + 2)}
    assert {document: numbers.tolist() for document, numbers in runs.items()} == {
        0: [0, 1],
        1: [0],
        2: [0],
        3: [0, 2],
        4: [0, 1],
    }
    leading = []
    for document, numbers in runs.items():
        leading.append(leaders.of(numbers).tolist())
        leaders.add(document, numbers)
    assert leading == [[], [0], [0, 1], [1, 2], [0, 2, 3]], "0 no longer in the first band, yet in the second"


def test_candidates_are_found_as_the_formula_says() -> None:
    draw = random.Random(3)
    originals = prose(1500, words=30)
    copies = [changed(text, draw) for text in originals]
    batches = [Batch([Document(text, "") for text in texts]) for texts in (originals, copies)]
    rule = MinHash(rows=8, bands=8)
    one, other = (rule.sketch(rule.shingles(batch)) for batch in batches)
    near = [similarity(*pair) for pair in zip(*(batch.texts for batch in batches), strict=True)]
    expected = np.mean([1 - (1 - value**rule.rows) ** rule.bands for value in near])
    assert (one == other).any(axis=1).mean() == pytest.approx(expected, abs=0.03)
    assert 0.6 < expected < 0.95


def test_a_wrong_threshold_is_refused() -> None:
    with pytest.raises(
        KronpressError, match=r"duplicates minhash: threshold is 2: Input should be less than or equal to 1"
    ):
        parse(Cleaning, {"duplicates": {"name": "minhash", "threshold": 2}}, place="clean")
