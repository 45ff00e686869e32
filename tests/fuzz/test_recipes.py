"""Mutated recipes and overrides: refused with a sentence, or a recipe that says the same when it is written again."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml

from kronpress.run.recipe import Recipe, read_recipe, shipped
from tests.fuzz.mutations import STRANGE, mutated_bytes, mutated_value
from tests.fuzz.outcome import outcome, run_trials

FEW = [pytest.param(120, id="few"), pytest.param(2000, id="many", marks=pytest.mark.slow)]
TEXTS = {name: path.read_text(encoding="utf-8") for name, path in shipped().items()}


def recipe_text(random: Random) -> str:
    """Return a shipped recipe with a change in its values or its bytes."""
    text = TEXTS[random.choice(sorted(TEXTS))]
    if random.random() < 0.4:
        return mutated_bytes(text.encode(), random).decode("utf-8", "replace")
    return yaml.safe_dump(mutated_value(yaml.safe_load(text), random), sort_keys=False, allow_unicode=True)


def override(random: Random) -> str:
    """Return an override of a key that is there or nearly so, with a value that is fit or not."""
    paths = ("seed", "model", "description", "data.train", "steps.0.sites", "distill.tokens", "distill.losses.logits")
    more = ("factorize.form", "prune.fit.ridge", "distill.learning_rate", "evaluate.protocols", "0.sites", "steps")
    path = random.choice((*paths, *more))
    values = (*map(str, STRANGE), *map(repr, STRANGE), "1000", "0.5", "{logits: 1}", "[tokens-512]", "van_loan")
    text = f"{path}={random.choice(values)}"
    return mutated_bytes(text.encode(), random).decode("utf-8", "replace") if random.random() < 0.7 else text


def same_again(recipe: Recipe, folder: Path, label: str) -> None:
    again: Any = folder / "again.yaml"
    again.write_text(recipe.to_yaml(), encoding="utf-8")
    assert read_recipe(again) == recipe, f"{label}: another recipe when written and read again"


@pytest.mark.parametrize("trials", FEW)
def test_a_mutated_recipe_is_refused_or_says_the_same_again(trials: int, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"

    def trial(number: int) -> None:
        path.write_text(recipe_text(Random(number)), encoding="utf-8")
        answer = outcome(lambda: read_recipe(path), label=f"recipe, trial {number}")
        if answer.accepted:
            same_again(answer.value, tmp_path, f"recipe, trial {number}")

    run_trials(trials, trial)


@pytest.mark.parametrize("trials", FEW)
def test_a_mutated_override_is_refused_or_says_the_same_again(trials: int, tmp_path: Path) -> None:
    def trial(number: int) -> None:
        random = Random(number)
        overrides = [override(random) for _ in range(random.choice((1, 1, 2)))]
        label = f"trial {number}, {[text[:80] for text in overrides]}"
        answer = outcome(lambda: read_recipe("halve-ffn", overrides=overrides), label=label)
        if answer.accepted:
            same_again(answer.value, tmp_path, label)

    run_trials(trials, trial)
