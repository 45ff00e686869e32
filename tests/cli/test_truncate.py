"""`kronpress truncate`: the short way to fewer blocks."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from kronpress.checkpoint import verify
from kronpress.cli import app
from kronpress.errors import KronpressError
from tests.tiny import TEXT, save_tiny


def truncate(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["truncate", *map(str, arguments)], catch_exceptions=False)
    return result.output


def test_a_model_is_shortened_in_one_command(tmp_path: Path) -> None:
    source, small = save_tiny(tmp_path / "model"), tmp_path / "small"
    told = truncate(source, "--keep", 2, "--out", small)
    assert "2 of 3 blocks stay (alt): 0, 1" in told
    assert verify(small)["deviation"] == 0
    assert AutoModelForCausalLM.from_pretrained(small).config.num_hidden_layers == 2
    assert "Blocks that stay" in (small / "report.html").read_text()


def test_blocks_are_named_by_their_numbers(tmp_path: Path) -> None:
    assert "(listed): 0, 2" in truncate(save_tiny(tmp_path / "model"), "--blocks", "0, 2", "--out", tmp_path / "small")


def test_blocks_are_measured_and_repaired_on_a_text_that_is_measured_on_too(tmp_path: Path) -> None:
    source, small = save_tiny(tmp_path / "model"), tmp_path / "small"
    (tmp_path / "text.txt").write_text(TEXT * 4)
    asked = ["--keep", 1, "--blocks", "greedy", "--repair", "--data", tmp_path / "text.txt"]
    told = truncate(source, *asked, "--out", small)
    assert "1 of 3 blocks stay (greedy)" in told and "repairing the blocks" in told and "vs. dense" in told
    assert "blocks left" in (small / "report.html").read_text()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["--blocks", "greddy", "--keep", 1], "unknown choice of blocks 'greddy': did you mean 'greedy'"),
        ([], "keep is missing; say how many of the 3 blocks stay"),
        (["--keep", 3], "keep: 3 of 3 blocks leaves out none"),
        (["--blocks", "0,7"], "the model has 3, numbered from 0 to 2"),
    ],
)
def test_a_mistake_is_refused_and_leaves_nothing(asked: list[object], message: str, tmp_path: Path) -> None:
    source = save_tiny(tmp_path / "model")
    with pytest.raises(KronpressError, match=message):
        truncate(source, *asked, "--out", tmp_path / "small")
    assert not (tmp_path / "small").exists()
