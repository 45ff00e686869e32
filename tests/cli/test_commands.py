"""The commands of the README on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from transformers import AutoModelForCausalLM, AutoTokenizer

import kronpress
from kronpress.cli import app
from tests.cli.test_bad_input import TEXT, call
from tests.tiny import save_tiny, tiny_llama

COMMANDS = typer.main.get_command(app).commands
SMALL = ["-o", "distill.tokens=128", "-o", "distill.window=32", "-o", "prune.fit.tokens=128"]
SMALL += ["-o", "prune.fit.window=32", "-o", "evaluate.max_windows=1"]


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A model, a text and where the result goes."""
    (tmp_path / "text.txt").write_text(TEXT)
    model = save_tiny(tmp_path / "model", tiny_llama(max_position_embeddings=512))
    return model, tmp_path / "text.txt", tmp_path / "small"


def test_the_tour_of_the_readme(
    folders: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, text, out = folders
    recipe = ["--recipe", "halve-ffn-kronecker", "--data", text, *SMALL]
    assert call(monkeypatch, "inspect", model) == 0
    assert "mistral" in capsys.readouterr().out
    assert call(monkeypatch, "compress", model, "--out", out, *recipe) == 0
    assert {"config.json", "kronpress.safetensors", "tokenizer.json", "README.md", "report.html"} <= names(out)
    assert not (out / "run" / "checkpoint").exists()
    AutoModelForCausalLM.from_pretrained(out)
    AutoTokenizer.from_pretrained(out)
    assert call(monkeypatch, "verify", out) == 0
    assert call(monkeypatch, "generate", out, "--prompt", "A fox", "--max-new-tokens", 3) == 0
    assert "A fox" in capsys.readouterr().out
    result = out.parent / "result.json"
    against = ["--against", model, "--data", text, "--max-windows", 1, "--speed", "--json", result]
    assert call(monkeypatch, "evaluate", out, *against) == 0
    assert {str(model), str(out), "speed"} == json.loads(result.read_text()).keys()
    assert call(monkeypatch, "compress", model, "--out", out, "--resume", *recipe) == 0


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_verify_notices_a_flipped_bit(
    folders: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, text, out = folders
    recipe = ["--recipe", "halve-ffn-training-free", "--data", text]
    assert call(monkeypatch, "compress", model, "--out", out, *recipe, *SMALL[4:]) == 0
    weights = bytearray((out / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (out / "model.safetensors").write_bytes(weights)
    assert call(monkeypatch, "verify", out) == 1
    assert "SHA-256" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--version"], f"kronpress {kronpress.__version__}"),
        (["recipes"], "halve-ffn-van-loan"),
        (["--help"], "Usage"),
        *([[name, "--help"], name] for name in COMMANDS),
    ],
    ids=str,
)
def test_help_and_lists(
    arguments: list[str], shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, *arguments) == 0
    captured = capsys.readouterr()
    assert shown in captured.out
    assert captured.err == ""


def test_a_finished_result_is_not_overwritten(
    folders: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, text, out = folders
    recipe = ["--recipe", "halve-ffn-training-free", "--data", text, *SMALL[4:], "-o", "evaluate.speed=false"]
    assert call(monkeypatch, "compress", model, "--out", out, *recipe) == 0
    assert capsys.readouterr().err == "", "no warning and no bar clutters a log"
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert call(monkeypatch, "compress", model, "--out", out, *recipe) == 1
    assert "add --resume" in " ".join(capsys.readouterr().err.split())
    assert call(monkeypatch, "compress", model, "--out", out, "--resume", *recipe) == 0
    assert call(monkeypatch, "compress", model, "--out", out, "--resume", *recipe, "-o", "seed=1") == 1
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_compress_that_was_stopped_goes_on(folders: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model, text, out = folders
    recipe = ["--recipe", "halve-ffn-training-free", "--data", text, *SMALL[4:], "-o", "evaluate.speed=false"]
    for target in (
        "kronpress.run.execution.save",
        "kronpress.run.publication.publish",
        "kronpress.run.publication.shutil.copyfile",
    ):
        with monkeypatch.context() as patched:
            patched.setattr(target, stop)
            assert call(patched, "compress", model, "--out", out, "--resume", *recipe) == 130
    assert call(monkeypatch, "compress", model, "--out", out, "--resume", *recipe) == 0
    assert call(monkeypatch, "verify", out) == 0


def stop(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_inspect_writes_shapes_as_a_recipe_takes_them(
    folders: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, _, _ = folders
    assert call(monkeypatch, "inspect", model, "--shapes", 1) == 0
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    shapes = {row[0]: row[1:3] for row in rows if len(row) == 8}
    assert shapes["up"] == ["24 × 16", "[1, 2]"]
    assert shapes["down"] == ["16 × 24", "[1, 2]"], "a recipe's shape is swapped for `down`"
