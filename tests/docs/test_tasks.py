"""What docs/tasks.md shows exists, and nothing is left out."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import typer

from kronpress.cli import app
from kronpress.evaluate import PROTOCOLS
from kronpress.run.recipe import read_recipe
from kronpress.tasks import TASKS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")


def test_its_recipe_reads(tmp_path: Path) -> None:
    (recipe,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    (tmp_path / "recipe.yaml").write_text(recipe)
    assert [step.kind for step in read_recipe(tmp_path / "recipe.yaml").steps] == ["factorize", "finetune"]


def test_its_commands_exist() -> None:
    commands = typer.main.get_command(app).commands
    (block,) = re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL)
    lines = [shlex.split(line.split("#")[0]) for line in block.splitlines()]
    assert len(lines) == 4
    for words in lines:
        known = {option for parameter in commands[words[1]].params for option in parameter.opts}
        assert {word for word in words[2:] if word.startswith("-")} <= known


def test_its_tables_name_every_task_and_protocol() -> None:
    named = {name for line in PAGE.splitlines() if line.startswith("| `") for name in re.findall(r"`([^`]+)`", line)}
    assert set(TASKS) | set(PROTOCOLS) <= named
