"""What a run remembers of its dense model, and what its steps read of the texts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import AddedToken

from kronpress.data import StoredWindows, read_text, tokens
from kronpress.distill import Distill
from kronpress.errors import KronpressError
from kronpress.records import Score
from kronpress.step import Workbench
from tests.tiny import TEXT, bench, tiny_bert, tiny_llama


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "teacher.json"


def measured(cache: Path, *, value: float = 1.0) -> float:
    """Return what is remembered, or now measured."""
    work = replace(bench(tiny_llama(num_hidden_layers=1), cache.parent), measurements=cache)
    return work.remember("score", Score, lambda: Score(value)).value


def test_what_was_measured_is_not_measured_again(cache: Path) -> None:
    assert [measured(cache, value=value) for value in (1.0, 2.0)] == [1.0, 1.0]


def test_what_is_damaged_is_measured_again(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured(cache)
    changed = json.loads(cache.read_text())
    changed["score"]["value"]["value"] = 7.0
    others = [b"[]", b"", b"3", b"\xff", b'{"score": 3}', b'{"score": {"value": {}, "sha256": "0"}}']
    for value, content in enumerate([json.dumps(changed).encode(), *others]):
        cache.write_bytes(content)
        assert measured(cache, value=value) == value
        assert f"{cache} is damaged" in capsys.readouterr().out
        assert measured(cache, value=9.0) == value


@pytest.fixture
def large(tmp_path: Path, large_texts: Path, monkeypatch: pytest.MonkeyPatch) -> Workbench:
    """A workbench whose text lies in a file."""
    monkeypatch.setattr(tokens, "CHUNK", 1000)
    (tmp_path / "text.txt").write_text(TEXT)
    corpus = read_text(str(tmp_path / "text.txt"))
    return replace(bench(tiny_llama(num_hidden_layers=1), tmp_path), train=corpus, held_out=corpus)


def test_steps_read_the_same_of_a_large_text(large: Workbench, large_texts: Path, tmp_path: Path) -> None:
    small = bench(tiny_llama(num_hidden_layers=1), tmp_path)
    for options in ({"size": 32, "tokens": 100}, {"size": 32, "tokens": 1}):
        assert torch.equal(large.training_windows(**options), small.training_windows(**options))
    assert torch.equal(large.held_out_windows(size=32, count=3), small.held_out_windows(size=32, count=3))
    assert torch.equal(large.training_counts(264, tokens=50), small.training_counts(264, tokens=50))
    assert not large_texts.exists(), "a beginning is not worth a place in the cache"
    drawn, expected = (work.drawn_windows(size=32, drawn=64, tokens=32) for work in (large, small))
    assert isinstance(drawn, StoredWindows) and len(expected) == 1, "a check reads only some of a small text"
    expected = small.drawn_windows(size=32, drawn=64)
    assert torch.equal(torch.stack([drawn[index] for index in range(len(drawn))]), torch.stack(list(expected)))
    assert torch.equal(large.training_counts(264), small.training_counts(264))


def test_unknown_tokens_far_behind_in_a_large_text_are_found(large: Workbench) -> None:
    large.require_known_texts()
    large.tokenizer.add_tokens([AddedToken("199 times")])
    with pytest.raises(KronpressError, match=r"gives id 264 \('199 times'\)"):
        large.require_known_texts()


def test_an_encoder_trains_on_windows_that_are_read_one_by_one(large: Workbench, tmp_path: Path) -> None:
    step = Distill(tokens=512, window=32, batch=4, losses={"cross_entropy": 1})
    work = bench(tiny_bert(num_hidden_layers=1), tmp_path / "small")
    stored = replace(bench(tiny_bert(num_hidden_layers=1), tmp_path / "large"), train=large.train)
    torch.manual_seed(0)
    expected = step.run(work).curve
    torch.manual_seed(0)
    assert step.run(stored).curve == expected
