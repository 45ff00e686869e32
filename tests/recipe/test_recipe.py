"""Recipes: what is read is what is written, and mistakes are named."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from kronpress.errors import KronpressError
from kronpress.recipe import Recipe, read_recipe, shipped


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_recipe_reads_and_writes_itself(name: str, tmp_path: Path) -> None:
    recipe = read_recipe(name)
    (tmp_path / "r.yaml").write_text(recipe.to_yaml())
    assert read_recipe(tmp_path / "r.yaml") == recipe
    assert recipe.description


def test_a_null_that_is_no_default_is_written() -> None:
    step = {"step": "finetune", "tasks": ["rte"], "teacher": None, "data": None}
    recipe = Recipe.model_validate({"steps": [step]})
    written = yaml.safe_load(recipe.to_yaml())["steps"][0]
    assert written["teacher"] is None and "data" not in written
    assert Recipe.model_validate({"steps": [written]}) == recipe


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("seed=3", ("seed",), 3),
        ("data.train=a.txt", ("data", "train"), "a.txt"),
        ("distill.tokens=77", ("steps", 2, "tokens"), 77),
        ("steps.2.tokens=78", ("steps", 2, "tokens"), 78),
        ("factorize.init.keep=0.25", ("steps", 0, "init", "keep"), 0.25),
        ("steps.0.init=svd", ("steps", 0, "init", "name"), "svd"),
        ("distill.losses.logits.temperature=2", ("steps", 2, "losses", "logits", "temperature"), 2.0),
    ],
)
def test_an_override_sets_one_value(override: str, path: tuple[str | int, ...], value: object) -> None:
    found = yaml.safe_load(read_recipe("halve-ffn", overrides=[override]).to_yaml())
    for part in path:
        found = found[part]
    assert found == value


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("distil.tokens=1", "did you mean 'distill'"),
        ("distill.token=1", "did you mean 'tokens'"),
        ("distill.tokens=many", "steps.2"),
        ("factorize.init=van_lone", "did you mean 'van_loan'"),
        ("factorize.init.kep=0.5", "did you mean 'keep'"),
        ("factorize.init.keep=1.5", "keep is 1.5"),
        ("distill.losses=logit", "did you mean 'logits'"),
        ("evaluate.protocols=[token-512]", "did you mean 'tokens-512'"),
        ("data.trian=x", "did you mean 'train'"),
        ("seed", "a.b=c"),
        ("steps=3", "steps must be a list"),
        ("steps=", "steps must be a list"),
        ("steps.9.tokens=1", "the recipe has 4 steps, numbered from 0"),
        ("distill=1", "name a key of the step as well"),
        ("factorize.right=[1", "is not a YAML value"),
        ("data=my.txt", "give a mapping with the keys train, held_out"),
        ("seed=-1", "seed is -1"),
        ("factorize.right=[1, 2, 3]", "right"),
        ("steps=[]", "steps"),
        ("steps=[{step: factorise}]", "did you mean 'factorize'"),
    ],
)
def test_a_mistake_in_an_override_is_named(override: str, message: str) -> None:
    with pytest.raises(KronpressError, match=message.replace("[", r"\[")):
        read_recipe("halve-ffn", overrides=[override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: [", "not valid YAML"),
        ("- a\n- b\n", "must hold a mapping"),
        ("modle: x\nsteps: [{step: evaluate}]", "did you mean 'model'"),
        ("model: x\n", "'steps' is missing"),
    ],
)
def test_a_mistake_in_a_file_names_the_file(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(KronpressError, match=message) as caught:
        read_recipe(path)
    assert "mine.yaml" in str(caught.value)


def test_an_override_takes_a_glob() -> None:
    recipe = read_recipe("halve-ffn", overrides=["factorize.sites=*.mlp.*"])
    assert recipe.to_yaml().count("sites: '*.mlp.*'") == 1


@pytest.mark.parametrize("content", ["steps:\n", "1: 2\nsteps: [{step: evaluate}]", "steps: [evaluate]", "steps: [1]"])
def test_odd_files_are_refused_briefly(content: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(content)
    for overrides in ([], ["distill.tokens=1"]):
        with pytest.raises(KronpressError) as caught:
            read_recipe(path, overrides=overrides)
        assert len(str(caught.value)) < 200


def test_a_wrong_step_is_not_buried_in_the_others() -> None:
    with pytest.raises(KronpressError) as caught:
        read_recipe("demo", overrides=["steps.1.init=svd"])
    assert str(caught.value).startswith("recipe demo.yaml: steps.1 (evaluate): unknown key 'init'")
    assert "calibrated_pruning" not in str(caught.value)


def test_an_unknown_recipe_gets_the_nearest_name() -> None:
    with pytest.raises(KronpressError, match="did you mean 'halve-ffn'"):
        read_recipe("halve-fn")
