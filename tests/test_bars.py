"""Progress on a terminal and in a log."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kronpress import bars
from kronpress.bars import Bar
from kronpress.run.execution import execute
from kronpress.run.recipe import read_recipe
from tests.tiny import TEXT, save_tiny

RECIPE = """
steps:
- {step: prune, keep: 0.5, fit: {tokens: 512, window: 64}}
- {step: factorize, sites: query, form: {name: low_rank, ratio: 0.5}}
- step: distill
  tokens: 256
  window: 64
  losses: {logits: {top_k: 8}}
  cache_teacher: true
  validate_every: 2
  validation_windows: 2
- {step: evaluate, protocols: [tokens-64], speed: true, prompts: [line]}
"""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still until its only number is changed."""
    now = [0.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    return now


def test_a_log_gets_a_line_every_half_minute_and_a_last_one(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in Bar(range(100), desc="train", unit="step"):
        clock[0] += 7
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 100 * 7 // 35 + 1, "the clock passes half a minute with every fifth step"
    assert lines[0].startswith("train: 5 of 100 steps, 00:35 gone, 11:05 left, ")
    assert lines[-1].startswith("train: 100 of 100 steps, 11:40 gone, 00:00 left")
    assert all(re.fullmatch(r"[ -~]+", line) for line in lines), "no control characters"


def test_a_line_has_the_plural_of_what_is_counted(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    for unit in ("batch", "text"):
        for _ in Bar(range(2), desc="all", unit=unit):
            clock[0] += 40
    lines = capsys.readouterr().err.splitlines()
    assert "2 of 2 batches" in lines[1]
    assert "2 of 2 texts" in lines[-1]


def test_short_work_and_hidden_work_leave_no_line(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    for _ in Bar(range(4), desc="short", unit="step"):
        clock[0] += 7
    with Bar(total=100, desc="told of often", unit="step") as bar:
        for _ in range(4):
            bar.set_postfix(loss="1.0")
    with Bar(total=100, desc="hidden", unit="step", hidden=True) as bar:
        clock[0] += 700
        bar.update(50)
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    list(Bar(range(3), desc="work", unit="step"))
    assert "\rwork: 100%|" in capsys.readouterr().err


def test_every_long_loop_of_a_run_tells_its_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bars, "SECONDS", 0.0)
    (tmp_path / "text.txt").write_text(TEXT)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    fields = {"model": str(save_tiny(tmp_path / "model")), "data": {"train": str(tmp_path / "text.txt")}}
    execute(read_recipe(tmp_path / "recipe.yaml", fields=fields), tmp_path / "run")
    told = {line.partition(":")[0] for line in capsys.readouterr().err.splitlines() if " of " in line}
    assert {"calibrated pruning", "factorize (nearest)", "teacher outputs", "train", "validation", "perplexity"} <= told
    assert {"speed", "samples"} <= told
