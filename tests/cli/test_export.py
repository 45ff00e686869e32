"""The export command: what it prints, what it writes, and how it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

import kronpress
from kronpress.checkpoint import structured_layers
from tests.cli.test_bad_input import assert_explained, call
from tests.export.gguf_files import small_llama
from tests.tiny import factorized, save_tiny, tiny_gpt2, tiny_tokenizer


@pytest.fixture
def student(tmp_path: Path) -> Path:
    model = factorized(tiny_gpt2(), tmp_path)
    return kronpress.save(model, tmp_path / "student", tokenizer=tiny_tokenizer())


def test_a_compressed_model_becomes_a_plain_one(
    student: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = student.parent / "a" / "dense"
    assert call(monkeypatch, "export", student, "--format", "dense", "--out", out) == 0
    captured = capsys.readouterr()
    layers, before = len(structured_layers(kronpress.load(student))), kronpress.load(student).num_parameters()
    after = tiny_gpt2().num_parameters()
    assert f"{layers} layers with factors or codes made dense: {before:,} parameters became {after:,}" in captured.out
    assert "parity: the largest logit difference is" in captured.out
    assert f"model:  {out}" in captured.out
    assert captured.err == "", "no warning and no bar clutters a log"
    assert type(AutoModelForCausalLM.from_pretrained(out)) is type(tiny_gpt2())
    AutoTokenizer.from_pretrained(out)
    assert call(monkeypatch, "verify", out) == 0
    assert call(monkeypatch, "generate", out, "--max-new-tokens", 2) == 0


def test_a_plain_model_is_exported_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_tiny(tmp_path / "model")
    assert call(monkeypatch, "export", model, "--out", tmp_path / "out") == 0
    printed = capsys.readouterr().out
    assert "a plain model, as it is" in printed
    assert "the largest logit difference is 0 in float32 and 0 in float64" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["student", "--format", "dens"], "unknown export format 'dens': did you mean 'dense'?"),
        (["student", "--tolerance", "0"], "where 0 is allowed"),
        (["nowhere"], "there is no folder 'nowhere'"),
        (["student", "--type", "q8_0"], "--type q8_0 is for --format gguf"),
        (["student", "--format", "gguf", "--tolerance", "0.1"], "--tolerance 0.1 is for --format dense and folded"),
        (["student", "--format", "gguf", "--type", "q8_1"], "did you mean 'q8_0'"),
        (["student", "--format", "gguf"], "GGUF has no place for factors"),
    ],
    ids=" ".join,
)
def test_a_bad_request_is_refused(
    arguments: list[str],
    message: str,
    student: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(student.parent)
    assert call(monkeypatch, "export", *arguments, "--out", "a/dense") == 1
    assert_explained(capsys, message)
    assert [path.name for path in student.parent.iterdir()] == ["student"]


def test_a_folder_that_holds_something_is_untouched(
    student: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in student.iterdir()}
    assert call(monkeypatch, "export", student, "--out", student) == 1
    assert_explained(capsys, "already holds files")
    assert {path: path.read_bytes() for path in student.iterdir()} == before


def test_a_plain_model_becomes_a_gguf_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_tiny(tmp_path / "model", small_llama())
    arguments = ("export", model, "--format", "gguf", "--type", "q4_0", "--out", tmp_path / "some" / "m.gguf")
    assert call(monkeypatch, *arguments) == 0
    captured = capsys.readouterr()
    assert "a model without grids, as q4_0" in captured.out
    assert "bits per weight" in captured.out
    assert f"model:  {tmp_path / 'some' / 'm.gguf'}" in captured.out
    assert captured.err == ""
    written = (tmp_path / "some" / "m.gguf").read_bytes()
    assert call(monkeypatch, *arguments) == 1
    assert_explained(capsys, "is there already")
    assert (tmp_path / "some" / "m.gguf").read_bytes() == written
