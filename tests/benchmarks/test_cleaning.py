"""The benchmark of cleaning counts rightly."""

from __future__ import annotations

from pathlib import Path

from benchmarks import cleaning
from tests.data.cleaning.text import prose


def test_planted_duplicates_are_found_and_look_alikes_stay(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("\n\n".join(prose(300, words=70)))
    result = cleaning.measure(tmp_path, megabytes=0.3, seed=0)
    minhash, study = result["rules"]["minhash"], result["rules"]["short_study"]
    assert minhash["precision"] == minhash["recall_at_0.8"] == minhash["kinds"]["exact"]["went"] == 1
    assert minhash["kinds"]["other middle"]["went"] == 0 < minhash["kinds"]["other middle"]["pairs"]
    assert study["kinds"]["other middle"]["went"] == 1 and study["precision"] < 0.9
    for counts in (minhash["clusters"], study["clusters"]):
        assert counts["clusters"] == 1 and counts["paragraphs"] >= 100
        assert 1 < counts["stay_exactly"] < counts["paragraphs"]
    assert minhash["clusters"]["stayed"] == minhash["clusters"]["stay_exactly"]
    assert minhash["clusters"]["stayed_similar"] == 0 < study["clusters"]["stayed_similar"]
    assert len(list(cleaning.tables(result))) == 3


def test_what_is_missing_from_a_result_is_found(tmp_path: Path) -> None:
    (tmp_path / "00000.txt").write_text("a\n\nb\n")
    (tmp_path / "00001.txt").write_text("a\n\nd\n")
    assert cleaning.missing(["a", "a", "b", "c", "b", "a", "d", "d"], tmp_path) == {1, 3, 4, 7}
