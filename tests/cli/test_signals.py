"""A run that is asked to end ends in one sentence, and goes on with --resume."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kronpress.cli import main
from kronpress.factorize import Factorize
from kronpress.lock import NOTE
from tests.tiny import TEXT, save_tiny, tiny_llama

RECIPE = """
model: {0}/model
data: {{train: {0}/text.txt}}
steps:
- {{step: factorize, sites: feed_forward, form: {{name: kronecker, right: [2, 2], terms: 1}}}}
"""
EXPORT = importlib.import_module("kronpress.cli.work.export")
SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    save_tiny(tmp_path / "model", tiny_llama(num_hidden_layers=1))
    (tmp_path / "text.txt").write_text(TEXT)
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(tmp_path))
    return tmp_path


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["kronpress", *map(str, arguments)])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def sending(number: int, original: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that does as `original` does once this process has been sent a signal."""

    def send(*arguments: Any, **options: Any) -> Any:
        os.kill(os.getpid(), number)
        return original(*arguments, **options)

    return send


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_signal_ends_a_run_that_goes_on_later(
    number: int, code: int, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = signal.getsignal(number)
    arguments = ["run", home / "recipe.yaml", "--out", home / "run"]
    with monkeypatch.context() as patched:
        patched.setattr(Factorize, "run", sending(number, Factorize.run))
        assert call(monkeypatch, *arguments) == code
    told = capsys.readouterr().err.splitlines()
    assert [line for line in told if "interrupted" in line] == [
        "interrupted; the same command with --resume goes on with the run"
    ]
    assert not any("Traceback" in line for line in told)
    assert signal.getsignal(number) == handler
    assert (home / "run" / "manifest.json").exists()
    assert not list(home.rglob(NOTE)) and not list(home.rglob(".*.partial"))
    assert call(monkeypatch, *arguments, "--resume") == 0
    assert (home / "run" / "report.html").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_other_commands_do_not_speak_of_resuming(
    number: int, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(EXPORT, "load_with_tokenizer", sending(number, lambda *_, **__: None))
    assert call(monkeypatch, "export", home / "model", "--out", home / "out") == 128 + number
    told = capsys.readouterr().err
    assert "interrupted" in told and "--resume" not in told
    assert not (home / "out").exists()


def test_what_a_library_makes_of_an_interruption_is_one_all_the_same(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrap(*_: Any, **__: Any) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt as error:
            raise RuntimeError("callback failed") from error

    monkeypatch.setattr(Factorize, "run", wrap)
    assert call(monkeypatch, "run", home / "recipe.yaml", "--out", home / "run") == 143
    assert "interrupted" in capsys.readouterr().err


def test_a_second_signal_ends_the_process_at_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def linger(*_: Any, **__: Any) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)

    monkeypatch.setattr(EXPORT, "load_with_tokenizer", linger)
    process = os.fork()
    if process == 0:
        call(monkeypatch, "export", home / "model", "--out", home / "out")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGTERM


def test_a_signal_that_is_ignored_stays_ignored(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        monkeypatch.setattr(Factorize, "run", sending(signal.SIGHUP, Factorize.run))
        assert call(monkeypatch, "run", home / "recipe.yaml", "--out", home / "run") == 0
    finally:
        signal.signal(signal.SIGHUP, before)
