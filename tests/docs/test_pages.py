"""What the documentation shows exists, is understood and runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer
import yaml

from kronpress.adapters import ADAPTERS
from kronpress.cli import app
from kronpress.data.cleaning import DUPLICATES, FILTERS, HTML
from kronpress.evaluate import PROTOCOLS
from kronpress.evaluate.text_set import TextSetFile
from kronpress.factorize import FITS, FORMS, PRESETS
from kronpress.families import FAMILIES
from kronpress.losses import LOSSES
from kronpress.quantizers import QUANTIZERS
from kronpress.run.recipe import Recipe, read_recipe
from kronpress.shipped import shipped
from kronpress.step import STEPS
from kronpress.tasks import TASKS
from tests.docs.pages import PAGES, ROOT, commands, every, kronpress_commands

COMMANDS = typer.main.get_command(app).commands
RECIPES, SETS = every("yaml"), every("yml")


def named(page: str) -> set[str]:
    """Return what stands in code at the beginning of the rows of a page's tables."""
    cells = [line.split("|")[1] for line in PAGES[page].splitlines() if line.startswith("| `")]
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


@pytest.mark.parametrize("words", [words for _, words in kronpress_commands()], ids=" ".join)
def test_commands_are_understood(words: list[str]) -> None:
    context = COMMANDS[words[0]].make_context(words[0], words[1:])
    recipe = context.params.get("recipe")
    if recipe in shipped():
        read_recipe(recipe, overrides=context.params["override"] or ())


@pytest.mark.parametrize("page", sorted(PAGES.keys() - {"docs/experiments.md"}))  # which has wrong ones on purpose
def test_commands_in_the_text_have_the_options_that_it_names(page: str) -> None:
    for line in re.findall(r"`kronpress (\w[^`]*)`", PAGES[page]):
        name, *words = line.split()
        options = {option for parameter in COMMANDS[name].params for option in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= options, line


def test_benchmarks_exist() -> None:
    modules = {words[words.index("-m") + 1] for _, words in commands() if "-m" in words}
    names = {name.removeprefix("benchmarks.") for name in modules if name.startswith("benchmarks.")}
    assert [name for name in names if not (ROOT / "benchmarks" / f"{name}.py").exists()] == []


@pytest.mark.parametrize("label", RECIPES)
def test_recipes_read(label: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPES[label], encoding="utf-8")
    recipe = read_recipe(tmp_path / "recipe.yaml")
    assert [step.kind for step in recipe.steps] == [step["step"] for step in yaml.safe_load(RECIPES[label])["steps"]]


@pytest.mark.parametrize("label", SETS)
def test_sets_of_texts_read(label: str) -> None:
    content = yaml.safe_load(SETS[label])
    assert list(TextSetFile.model_validate(content).texts) == list(content["texts"])


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_files_that_are_linked_to_exist(page: str) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", PAGES[page])  # those between the pages are checked when the site is built
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_readme_links_to_every_page() -> None:
    linked = set(re.findall(r"\]\((docs/[^)#]+)\)", PAGES["README.md"]))
    assert set(PAGES) - linked == {"README.md", "CONTRIBUTING.md", "docs/index.md"}


def test_the_tables_name_what_is_registered() -> None:
    assert set(TASKS) <= named("docs/tasks.md")
    assert set(PROTOCOLS) <= named("docs/evaluate.md")
    assert set(LOSSES) == named("docs/losses.md")
    assert set(QUANTIZERS) <= named("docs/quantize.md")
    assert {*HTML, *FILTERS, *DUPLICATES} <= named("docs/clean.md")
    fields = {name for shelf in (FORMS, FITS, ADAPTERS) for _, method in shelf.items() for name in method.model_fields}
    assert {*FORMS, *FITS, *PRESETS, *ADAPTERS, *fields} <= set(re.findall(r"`(\w+)`", PAGES["docs/recipes.md"]))
    assert set(FAMILIES) <= set(re.findall(r"`(\w+)`", PAGES["docs/models.md"]))


def test_every_key_of_a_recipe_is_explained() -> None:
    keys = set(Recipe.model_fields).union(*(step.model_fields for _, step in STEPS.items()))
    assert keys - named("docs/recipes.md") == set()
    assert all(f"\n## {kind}\n" in PAGES["docs/recipes.md"] for kind in STEPS)


def test_every_field_of_a_loss_is_named() -> None:
    rows = {line.split("`")[1]: line for line in PAGES["docs/losses.md"].splitlines() if line.startswith("| `")}
    for name, loss in LOSSES.items():
        fields = set(loss.model_fields) - {"weight"}
        assert {field for field in fields if f"`{field}`" not in rows[name]} == set(), name
