"""The trim command: a plain model with fewer tokens, which loses nothing on the text that it was trimmed to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from kronpress.evaluate.perplexity import PerplexityProtocol
from tests.cli.test_bad_input import assert_explained, call
from tests.tiny import factorized, save_tiny, tiny_gpt2, tiny_llama
from tests.trim.test_pieces import OTHER, PROSE, byte_level, trained


@pytest.fixture
def model(tmp_path: Path) -> Path:
    tokenizer = trained(byte_level)
    tiny_llama(vocab_size=len(tokenizer) + 4).save_pretrained(tmp_path / "model")  # with rows that no token has
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "text.txt").write_text(PROSE[:2000])
    (tmp_path / "other.txt").write_text(PROSE[2000:] + OTHER)
    return tmp_path / "model"


def test_a_vocabulary_is_trimmed_in_one_command(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = model.parent
    out, text, report = folder / "out", folder / "text.txt", folder / "report.json"
    options = ["--data", text, "--held-out", folder / "other.txt", "--out", out, "--json", report]
    assert call(monkeypatch, "trim", model, *options) == 0
    done, shown = json.loads(report.read_text()), capsys.readouterr().out
    before, after = (
        (AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)) for path in (model, out)
    )
    assert done["kept"] == len(after[1]) == after[0].config.vocab_size < done["tokens"] == before[0].config.vocab_size
    assert done["parameters"] == after[0].num_parameters() < before[0].num_parameters() == done["parameters_before"]
    assert done["compared"] == len(PROSE[:2000].splitlines())
    assert done["tokens_after"] > done["tokens_before"]
    assert f"{done['kept']}" in shown and f"model:  {out}" in shown
    per_byte = PerplexityProtocol("per byte", window=32, normalizer="byte", remainder="keep")
    numbers = [per_byte.measure(*pair, text.read_text(), name="text", progress=False) for pair in (before, after)]
    assert numbers[0].words == numbers[1].words == len(text.read_bytes())
    assert numbers[0].tokens_per_word == numbers[1].tokens_per_word
    assert 0.9 * numbers[0].perplexity < numbers[1].perplexity <= numbers[0].perplexity, "over fewer tokens"
    assert call(monkeypatch, "verify", out) == 0


def test_so_many_tokens_stay(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = model.parent / "out"
    assert call(monkeypatch, "trim", model, "--data", model.parent / "text.txt", "--keep", 300, "--out", out) == 0
    assert AutoModelForCausalLM.from_pretrained(out).config.vocab_size == 300


def test_what_cannot_be_trimmed_is_left(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = model.parent
    out, text = folder / "out", folder / "text.txt"
    assert call(monkeypatch, "trim", model, "--data", text, "--keep", 9, "--out", out) == 1
    assert_explained(capsys, "keep is 9; give a number from")
    factors = save_tiny(folder / "factors", factorized(tiny_gpt2(), folder))
    assert call(monkeypatch, "trim", factors, "--data", text, "--out", out) == 1
    assert_explained(capsys, "trim the dense model first")
    assert not out.exists()
    assert call(monkeypatch, "trim", model, "--data", text, "--out", model) == 1
    assert_explained(capsys, "model")
