"""`kronpress evaluate --texts`: what is printed and what is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.test_bad_input import TEXT, assert_explained, call
from tests.tiny import save_tiny, tiny_llama


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two checkpoints, and beside them a set of two texts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    Path("text.txt").write_text(TEXT)
    Path("set.yaml").write_text(
        "{name: kinds, texts: {all: {source: text.txt, protocol: tokens-32, windows: 2}, "
        "end: {source: text.txt, held_out: 0.1, protocol: tokens-16}}}"
    )
    paths = (save_tiny(tmp_path / name, tiny_llama(num_hidden_layers=1, seed=seed)) for seed, name in enumerate("ab"))
    first, second = paths
    return first, second


def test_two_models_side_by_side(
    models: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    student, dense = models
    options = ["--against", dense, "--texts", "set.yaml", "--json", "out.json"]
    assert call(monkeypatch, "evaluate", student, *options) == 0
    results = json.loads(Path("out.json").read_text())
    compared = results["texts"]
    assert (compared["name"], [text["name"] for text in compared["texts"]]) == ("kinds", ["all", "end"])
    ratios = [text["perplexity"]["ratio"] for text in compared["texts"]]
    assert compared["general"] == pytest.approx((ratios[0] * ratios[1]) ** 0.5)
    for text, alone in zip(compared["texts"], results[str(student)]["texts"]["texts"], strict=True):
        assert text["perplexity"]["student"] == alone["perplexity"] and text["digest"] == alone["digest"]
    assert "perplexity" not in results[str(student)], "no other text is measured"
    printed = capsys.readouterr().out
    for shown in ("kinds", "general", f"{compared['general']:.3f}×", compared["texts"][0]["digest"], "tokens-16"):
        assert shown in printed


def test_one_model_has_perplexities_alone(
    models: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "evaluate", models[0], "--texts", "set.yaml", "--json", "out.json") == 0
    results = json.loads(Path("out.json").read_text())
    assert results.keys() == {str(models[0])}
    printed = capsys.readouterr().out
    assert "general" not in printed and "ratio" not in printed
    assert all(text["digest"] in printed for text in results[str(models[0])]["texts"]["texts"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--texts", "text.txt"], "must hold a mapping with the keys name, texts"),
        (["--texts", "none.yaml"], "'none.yaml' can not be read"),
        (["--texts", "set.yaml", "--max-windows", 1], "--max-windows is for --data"),
    ],
)
def test_a_mistake_is_explained(
    arguments: list[object],
    message: str,
    models: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(monkeypatch, "evaluate", models[0], *arguments) == 1
    assert_explained(capsys, message)
