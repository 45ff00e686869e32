"""What is imported when: help and mistakes in options come before torch, and `import kronpress` is light."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

import kronpress
from kronpress.cli import app
from kronpress.export import EXPORTERS, TOLERANCE
from tests.tiny import factorized, save_tiny, tiny_gpt2

HEAVY = "torch transformers numpy matplotlib scipy sklearn datasets lm_eval pydantic".split()  # noqa: SIM905
COMMANDS = typer.main.get_command(app).commands
PRELUDE = f"""
import contextlib, io, json, sys

def heavy():
    return [name for name in {HEAVY} if name in sys.modules]

def modules_after(*arguments):
    from kronpress.cli import main
    sys.argv = ["kronpress", *arguments]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as errors:
        try:
            main()
        except SystemExit as stop:
            return [stop.code or 0, heavy()]
    return [0, heavy()]
"""


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return kronpress.save(factorized(tiny_gpt2(), tmp_path), tmp_path / "student")


def run_python(code: str, *arguments: object) -> Any:
    """Run code in a new process and return what it prints, as JSON."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-W", "error::ImportWarning", "-c", PRELUDE + code, *map(str, arguments)]
    return json.loads(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def test_commands_answer_before_torch_and_registration_waits_for_transformers(tmp_path: Path, checkpoint: Path) -> None:
    other = save_tiny(tmp_path / "plain")
    calls = [
        *(["--help"], ["--version"], ["--nope"], ["nope"], ["recipes"]),
        *([name, "--help"] for name in COMMANDS),
        *([name, "--nope"] for name in COMMANDS),
        *([name] for name in COMMANDS if name != "recipes"),
        ["compress", "x", "--bad"],
    ]
    code = f"""
import importlib.util
answers = [modules_after(*arguments) for arguments in {calls}]
late = modules_after("run", "demo", "--held-out", "x"), modules_after("verify", "nowhere")
import kronpress
names = dir(kronpress)
specification = importlib.util.find_spec("transformers")
import kronpress.families, kronpress.layers
rooms = [name for name in ("transformers", "scipy", "matplotlib") if name in sys.modules]
from transformers import AutoModelForCausalLM
kinds = [type(AutoModelForCausalLM.from_pretrained(path)).__name__ for path in sys.argv[1:]]
import transformers
own = specification.name, type(transformers.__spec__.loader).__module__
later = [name for name in ("transformers.trainer", "sklearn", "matplotlib", "datasets") if name in sys.modules]
print(json.dumps([answers, late, names, rooms, kinds, own, later]))
""".replace("sys.argv[1:]", repr([str(checkpoint), str(other)]))
    answers, late, names, rooms, kinds, own, later = run_python(code)
    for arguments, (status, modules) in zip(calls, answers, strict=True):
        right = 0 if "help" in arguments[-1] or arguments in (["--version"], ["recipes"]) else 2
        assert (status, modules) == (right, []), arguments
    assert [status for status, _ in late] == [1, 1]
    assert not {"torch", "transformers"} & {name for _, modules in late for name in modules}
    assert set(kronpress.__all__) <= set(names)
    assert rooms == []
    assert kinds == ["KronpressGPT2LMHeadModel", "LlamaForCausalLM"]
    assert own[0] == "transformers" and not own[1].startswith("kronpress")
    assert later == []


def test_transformers_may_come_first(checkpoint: Path) -> None:
    code = f"""
import transformers
import kronpress
model = transformers.AutoModelForCausalLM.from_pretrained({str(checkpoint)!r})
print(json.dumps([type(model).__name__, type(kronpress.load({str(checkpoint)!r})).__name__]))
"""
    assert run_python(code) == ["KronpressGPT2LMHeadModel"] * 2


def test_the_package_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="'kronpress' has no attribute 'lod'"):
        kronpress.lod  # noqa: B018


def test_the_help_of_export_says_what_the_exporters_are() -> None:
    options = {parameter.name: parameter for parameter in COMMANDS["export"].params}
    assert options["format"].help == f"One of {', '.join(EXPORTERS)}."
    assert f"{TOLERANCE:.4f} if not given" in str(options["tolerance"].help)
