"""Broken JSON files beside a model: one sentence from every command that reads them."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from kronpress import KronpressError
from kronpress.cli import app
from tests.tiny import save_tiny

RUNNER = CliRunner()
COMMANDS = {
    "generate": ["generate", "MODEL", "--prompt", "a"],
    "evaluate": ["evaluate", "MODEL"],
    "compress": ["compress", "MODEL", "--recipe", "halve-ffn", "--out", "OUT"],
}


def refusal(folder: Path, command: str) -> str:
    places = {"MODEL": str(folder), "OUT": str(folder.parent / "out")}
    result = RUNNER.invoke(app, [places.get(word, word) for word in COMMANDS[command]])
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, KronpressError | SystemExit), result.exception
    return str(result.exception) if isinstance(result.exception, KronpressError) else result.output


@pytest.mark.parametrize("command", list(COMMANDS))
def test_a_tokenizer_that_is_none_is_named(tmp_path: Path, command: str) -> None:
    folder = save_tiny(tmp_path / "model")
    for text, expected in (("null", "not a JSON object"), ("{}", "holds no tokenizer that can be read")):
        (folder / "tokenizer.json").write_text(text)
        message = refusal(folder, command)
        assert "tokenizer.json" in message and expected in message


def test_an_end_of_text_that_is_no_token_is_named(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model")
    (folder / "generation_config.json").write_text('{"eos_token_id": "x"}')
    assert "eos_token_id is 'x', not a token id" in refusal(folder, "generate")
