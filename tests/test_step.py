"""What a run remembers of its teacher."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.tiny import bench, tiny_llama


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    return tmp_path / "teacher.json"


def measured(memory: Path, *, value: float = 1.0) -> float:
    """Return what is remembered, or now measured."""
    work = replace(bench(tiny_llama(num_hidden_layers=1), memory.parent), memory=memory)
    return float(work.remember("perplexity", lambda: {"all": value})["all"])


def test_what_was_measured_is_not_measured_again(memory: Path) -> None:
    assert [measured(memory, value=value) for value in (1.0, 2.0)] == [1.0, 1.0]


def test_what_is_damaged_is_measured_again(memory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured(memory)
    changed = json.loads(memory.read_text())
    changed["perplexity"]["value"]["all"] = 7.0
    others = [b"[]", b"", b"3", b"\xff", b'{"perplexity": 3}', b'{"perplexity": {"value": {}, "sha256": "0"}}']
    for value, content in enumerate([json.dumps(changed).encode(), *others]):
        memory.write_bytes(content)
        assert measured(memory, value=value) == value
        assert f"{memory} is damaged" in capsys.readouterr().out
        assert measured(memory, value=9.0) == value
