"""Texts of a recipe that are cleaned before a run reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from kronpress.errors import KronpressError
from kronpress.run import execute, make_recipe
from kronpress.run.inputs import Texts
from kronpress.run.recipe import Recipe, TextSource
from tests.tiny import TEXT, save_tiny

LINES = [
    f"In the year {number} the {number}th ship came home with {number * 7} men and women." for number in range(300)
]
DIRTY = "\n".join([*LINES, *LINES[:100], '<div class="menu"><a href="/">Home</a></div>'] * 2) + "\n"
SETTINGS = {"unit": "line"}


@pytest.fixture
def dirty(tmp_path: Path) -> Path:
    path = tmp_path / "dirty.txt"
    path.write_text(DIRTY)
    return path


def test_duplicates_and_html_are_not_trained_on(dirty: Path) -> None:
    texts = Texts.read(TextSource(train=str(dirty), clean=SETTINGS))
    (train,), (held_out,) = texts.train, texts.held_out
    assert (train.corpus.text + held_out.corpus.text).split("\n") == [*LINES, ""]
    assert train.corpus.name == f"{dirty} (train)"
    (note,) = texts.notes
    assert "300 of 802 documents stay" in note and "2 for html" in note


def test_of_several_each_is_cleaned_and_a_named_held_out_text_stays(dirty: Path, tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text(TEXT * 2)
    (tmp_path / "held.txt").write_text("<div>as it is</div>\n" * 2)
    shares = {"ships": {"source": str(dirty)}, "lines": {"source": str(tmp_path / "other.txt"), "weight": 2}}
    texts = Texts.read(TextSource(train=shares, held_out=str(tmp_path / "held.txt"), clean={"unit": "line"}))
    assert [text.corpus.name for text in texts.train] == ["ships", "lines"]
    assert texts.train[1].corpus.text == TEXT and len(texts.notes) == 2
    assert texts.held_out[0].corpus.text == "<div>as it is</div>\n" * 2


def test_a_changed_file_and_other_settings_are_cleaned_anew(dirty: Path) -> None:
    first = Texts.read(TextSource(train=str(dirty), clean=SETTINGS)).train[0].corpus.text
    (other,) = Texts.read(TextSource(train=str(dirty), clean=SETTINGS | {"html": "none"})).held_out
    dirty.write_text("A new line that was not there before, with words of its own.\n" + DIRTY)
    assert "menu" in other.corpus.text and not first.startswith("A new line")
    assert Texts.read(TextSource(train=str(dirty), clean=SETTINGS)).train[0].corpus.text.startswith("A new line")


def test_a_run_reads_the_cleaned_text_and_its_report_says_so(dirty: Path, tmp_path: Path) -> None:
    data = {"train": str(dirty), "clean": {"unit": "line", "duplicates": "exact"}}
    steps = [{"step": "pretrain", "tokens": 64, "window": 32, "batch": 1}]
    recipe = make_recipe({"model": str(save_tiny(tmp_path / "model")), "data": data, "steps": steps})
    run = execute(recipe, tmp_path / "run")
    assert any("300 of 802 documents stay" in note for note in run.summary().notes)
    assert "300 of 802 documents stay" in run.report_page.read_text()


@pytest.mark.parametrize(
    "clean", [True, {"unit": "line", "html": "none", "duplicates": {"name": "minhash", "bands": 20}}]
)
def test_the_settings_are_written_and_read_again(clean: object, tmp_path: Path) -> None:
    recipe = make_recipe({"data": {"clean": clean}, "steps": [{"step": "pretrain", "tokens": 1}]})
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    assert Recipe.model_validate({**recipe.model_dump(), "steps": recipe.steps}) == recipe
    assert "name: minhash" in recipe.to_yaml()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"train": "hub:a/b", "clean": True},
            "data.clean cleans files, and 'hub:a/b' is on the hub; write it to files",
        ),
        ({"clean": {"units": "line"}}, "data.clean: unknown key 'units': did you mean 'unit'"),
        ({"clean": {"html": "lenient"}}, "unknown rule for HTML 'lenient'"),
    ],
)
def test_what_can_not_be_cleaned_is_refused(data: dict[str, object], message: str) -> None:
    with pytest.raises(KronpressError, match=message):
        Texts.read(make_recipe({"data": data, "steps": [{"step": "pretrain", "tokens": 1}]}).data)
