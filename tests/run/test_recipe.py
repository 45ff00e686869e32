"""Recipes: what is read is what is written, and mistakes are named."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml

from kronpress.errors import KronpressError
from kronpress.run.recipe import Recipe, read_recipe, shipped


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
        ("prune.keep=0.25", ("steps", 0, "keep"), 0.25),
        ("steps.0.fit.ridge=1e-4", ("steps", 0, "fit", "ridge"), 1e-4),
        ("steps.0.form=kronecker", ("steps", 0, "form", "name"), "kronecker"),
        ("description=2020-13-45", ("description",), "2020-13-45"),
        ("description=2020-01-01", ("description",), "2020-01-01"),
        ("description=no", ("description",), "no"),
        ("description=1:30", ("description",), "1:30"),
        ("description=a: b: c", ("description",), "a: b: c"),
        ("distill.tokens=1e6", ("steps", 2, "tokens"), 1_000_000),
        ("distill.tokens=1_000", ("steps", 2, "tokens"), 1000),
        ("distill.tokens='1000'", ("steps", 2, "tokens"), 1000),
        ("distill.learning_rate=1e-3", ("steps", 2, "learning_rate"), 0.001),
        ("evaluate.speed=yes", ("steps", 1, "speed"), True),
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
        ("description=!!int y", "'y' is no value of the tag !!int"),
        ("description=!!bool y", "tag !!bool"),
        ("description=!!timestamp y", "timestamp' is not read"),
        ("steps.².tokens=1", "numbered from 0"),
        ("steps.00.tokens=1", "numbered from 0"),
        (f"steps.{'9' * 5000}.tokens=1", "numbered from 0"),
        (f"seed={'9' * 5000}", "a number of 5,000 characters"),
        ("seed=3000000000", "seed is 3000000000: .*less than or equal to 2147483647"),
        (f"seed={'[' * 1200}", "nested more than 40 deep"),
        (f"data{'.a' * 1000}=1", "1001 keys inside of each other"),
        (f"distill.tokens={'a' * 10_000}", "steps.2"),
        (f"{'a' * 10_000}=1", "choose one of"),
        (f"steps=[{{step: {'a' * 10_000}}}]", "unknown step 'aaa"),
        ("steps=[{step: [evaluate]}]", r"unknown step ['evaluate']"),
        (f"distill.losses.logits.{'a' * 10_000}=1", "unknown key"),
        (f"distill.losses=[{'a, ' * 1000}]", "give a mapping of"),
        ("distill.losses={logits: 1, logits: 2}", "the key 'logits' is given twice"),
        ("distill.losses={a.b: {name: hidden}, a_b: {name: hidden}}", "differ in '.' and '_' alone: a.b, a_b"),
        ("distill.tokens=true", "tokens is True: a number is needed, not true or false"),
        ("distill.tokens=1.5", "tokens is 1.5: .*fractional part"),
        ("distill.tokens=1e30", "tokens is 1e\\+30: "),
        ("distill.tokens='99999999999999999999'", "a whole number can be at most 9,007,199,254,740,992"),
        ("distill.learning_rate=.inf", "learning_rate is inf: .*finite"),
        ("distill.learning_rate=.nan", "learning_rate is nan: "),
        ("distill.learning_rate=1e400", "learning_rate is inf: .*finite"),
        ("distill.learning_rate='inf'", "learning_rate is 'inf': .*finite"),
        ("distill.weight_decay=.inf", "weight_decay is inf: .*finite"),
        ("distill.losses.logits=.inf", "weight is inf: .*finite"),
        ("distill.losses.logits=true", "weight is True: a number is needed"),
        ("distill.losses.logits.temperature=.inf", "temperature is inf: .*finite"),
        ("prune.fit.ridge=.inf", "ridge is inf: .*finite"),
        ("evaluate.max_passages=3", "max_passages: 3 would not be read; name LAMBADA's file under lambada"),
        ("distill.cache_max_bytes=3", "cache_max_bytes: 3 would not be read; set cache_teacher: true"),
        ("evaluate.tokens=3", r"steps.1 (evaluate): unknown key 'tokens': write it in a step that has it: distill"),
        ("evaluate.seed=3", r"steps.1 (evaluate): unknown key 'seed': write it at the top of the recipe, beside steps"),
        ("distil.tokens=1", "did you mean 'distill'"),
        ("distill.token=1", "did you mean 'tokens'"),
        ("distill.tokens=many", "steps.2"),
        ("prune.fit=surgeom", "did you mean 'surgeon'"),
        ("prune.kep=0.5", "did you mean 'keep'"),
        ("prune.keep=1.5", "keep is 1.5"),
        ("distill.losses=logit", "did you mean 'logits'"),
        ("evaluate.protocols=[token-512]", "did you mean 'tokens-512'"),
        ("data.trian=x", "did you mean 'train'"),
        ("seed", "a.b=c"),
        ("steps=3", "steps must be a list"),
        ("steps=", "steps must be a list"),
        ("steps.9.tokens=1", "the recipe has 4 steps, numbered from 0"),
        ("distill=1", "name a key of the step as well"),
        ("prune.form=[1", "is not a YAML value"),
        ("data=my.txt", "give a mapping with the keys train, held_out"),
        ("seed=-1", "seed is -1"),
        ("prune.form=[1, 2, 3]", "form"),
        ("steps=[]", "steps"),
        ("steps=[{step: factorise}]", "did you mean 'factorize'"),
    ],
)
def test_a_mistake_in_an_override_is_named(override: str, message: str) -> None:
    started = time.process_time()
    with pytest.raises(
        KronpressError, match=message.replace("[", r"\[").replace("(", r"\(").replace(")", r"\)")
    ) as caught:
        read_recipe("halve-ffn", overrides=[override])
    assert len(str(caught.value)) < 700 and time.process_time() - started < 5


def test_a_giant_value_is_refused_before_it_is_read() -> None:
    with pytest.raises(KronpressError, match="characters; at most 262,144 are read"):
        read_recipe("halve-ffn", overrides=[f"description={'a' * 10**6}"])


def test_a_bomb_of_aliases_is_refused_at_once() -> None:
    inner = "".join(f", &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9))
    started = time.process_time()
    with pytest.raises(KronpressError, match="aliases stand for too much") as caught:
        read_recipe("halve-ffn", overrides=[f"description=[&a0 [lol, lol, lol]{inner}]"])
    assert len(str(caught.value)) < 300 and time.process_time() - started < 5


def test_an_alias_repeats_a_part(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(
        "steps:\n- &first {step: distill, tokens: 1e4, losses: {logits: 1}}\n- {<<: *first, learning_rate: 1e-4}\n"
    )
    first, second = read_recipe(tmp_path / "r.yaml").steps
    assert first.model_copy(update={"learning_rate": 1e-4}) == second


@pytest.mark.parametrize("name", ["a" * 300, "a\0b", "~nobody-of-this-name/r.yaml"])
def test_what_is_no_path_is_no_recipe(name: str) -> None:
    with pytest.raises(KronpressError):
        read_recipe(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: [", "not valid YAML"),
        ("- a\n- b\n", "must hold a mapping"),
        ("tokens: 5\nsteps: [{step: evaluate}]", "unknown key 'tokens': write it in a step that has it: distill"),
        ("modle: x\nsteps: [{step: evaluate}]", "did you mean 'model'"),
        ("model: x\n", "'steps' is missing"),
        ("model: x\nseed: 1\nmodel: y\n", "line 3: the key 'model' is given twice"),
        ("steps: [{step: evaluate, max_windows: !!int y}]", "line 1: 'y' is no value"),
        ("x: &a [*a]\n", "aliases stand for too much"),
        ("[" * 1200, "nested more than 40 deep"),
        (f"seed: {'9' * 5000}", "line 1: a number of 5,000 characters"),
    ],
)
def test_a_mistake_in_a_file_names_the_file(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(KronpressError, match=message) as caught:
        read_recipe(path)
    assert "mine.yaml" in str(caught.value)


def test_an_override_takes_a_glob() -> None:
    recipe = read_recipe("halve-ffn-svd", overrides=["factorize.sites=*.mlp.*"])
    assert recipe.to_yaml().count("sites: '*.mlp.*'") == 1


@pytest.mark.parametrize("content", ["steps:\n", "1: 2\nsteps: [{step: evaluate}]", "steps: [evaluate]", "steps: [1]"])
def test_odd_files_are_refused_briefly(content: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(content)
    for overrides in ([], ["distill.tokens=1"]):
        with pytest.raises(KronpressError) as caught:
            read_recipe(path, overrides=overrides)
        assert len(str(caught.value)) < 200


def test_many_mistakes_are_a_short_message() -> None:
    with pytest.raises(KronpressError, match="and 996 more"):
        read_recipe("halve-ffn-svd", overrides=[f"factorize.skip_blocks=[{'a, ' * 1000}]"])


def test_a_wrong_step_is_not_buried_in_the_others() -> None:
    with pytest.raises(KronpressError) as caught:
        read_recipe("demo", overrides=["steps.1.form=narrow"])
    assert str(caught.value).startswith("recipe demo.yaml: steps.1 (evaluate): unknown key 'form'")
    assert "unknown key" in str(caught.value) and "narrow" not in str(caught.value), "no faults of other steps"


@pytest.mark.parametrize("name", shipped())
def test_the_users_text_takes_the_place_of_that_of_a_recipe(name: str) -> None:
    assert read_recipe(name, fields={"data": {"train": "my.txt"}}).data.train == "my.txt"


def test_an_unknown_recipe_gets_the_nearest_name() -> None:
    with pytest.raises(KronpressError, match="did you mean 'halve-ffn'"):
        read_recipe("halve-fn")
