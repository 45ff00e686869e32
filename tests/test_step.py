"""What a run remembers of its dense model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from kronpress.records import Score
from tests.tiny import bench, tiny_llama


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
