"""What the README shows exists and is understood."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from kronpress.cli import app
from kronpress.run.recipe import read_recipe

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = typer.main.get_command(app).commands


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def command_lines() -> list[list[str]]:
    lines = [line.split("#")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [shlex.split(line) for line in lines if re.search(r"(^|/)kronpress ", line)]


@pytest.mark.parametrize("words", command_lines(), ids=" ".join)
def test_commands_and_their_options_exist(words: list[str]) -> None:
    command = COMMANDS[words[1]]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words[2:] if word.startswith("-")} <= known


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^make (\w[\w-]*)", "\n".join(blocks("sh")), flags=re.MULTILINE))
    assert targets == {"demo", "test"}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in targets)


def test_the_recipe_reads(tmp_path: Path) -> None:
    (recipe,) = blocks("yaml")
    (tmp_path / "recipe.yaml").write_text(recipe)
    assert [step.kind for step in read_recipe(tmp_path / "recipe.yaml").steps] == ["factorize", "distill", "evaluate"]


@pytest.mark.parametrize("code", blocks("python"))
def test_python_compiles(code: str) -> None:
    compile(code, "README.md", "exec")


def test_every_file_that_it_links_to_exists() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_tree_names_every_room() -> None:
    tree = README.split("```\nsrc/kronpress/\n")[1].split("```")[0]
    rooms = {path.name for path in (ROOT / "src" / "kronpress").iterdir() if (path / "__init__.py").exists()}
    assert [room for room in rooms if f"{room}/" not in tree] == []


def test_nothing_is_to_be_installed_that_no_registry_has() -> None:
    texts = [README, *(path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md"))]
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py")]
    assert [text[:40] for text in texts + sources if re.search(r"install[^\n`]*\bkronpress\[", text)] == []
    (extras,) = re.findall(r"pip install '\.\[([\w,-]+)\]'", README)
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert all(f"\n{extra} = [" in pyproject for extra in extras.split(","))
