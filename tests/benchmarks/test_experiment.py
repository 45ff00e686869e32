"""Experiments are recipes and tables that can be read, and what is varied in them is what their names say."""

from __future__ import annotations

import pytest

from benchmarks import distillation, experiment, study, tasks
from benchmarks.experiment import Start
from kronpress.distill import Distill
from kronpress.errors import KronpressError
from kronpress.finetune import Finetune
from kronpress.run import read_recipe

FILES = {path.stem for path in experiment.FOLDER.iterdir()}
TEXTS = {"general", "general-12", "wikitext"}
RECIPES = {name for name in FILES if not name.endswith(("-starts", "-rows", "-arms"))} - TEXTS
STARTS = {
    "decoders": experiment.table("decoders-starts"),
    "distillation": experiment.table("distillation-arms")["starts"],
    "initializations": experiment.table("initializations-starts"),
    "tables": experiment.table("tables-starts"),
    "tasks-student": experiment.table("tasks-rows")["starts"],
}


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_is_one_that_a_run_takes(name: str) -> None:
    assert read_recipe(experiment.FOLDER / f"{name}.yaml") == experiment.recipe(name, Start())


@pytest.mark.parametrize("name", sorted(STARTS))
def test_every_start_begins_the_recipe_and_leaves_what_follows(name: str) -> None:
    whole = experiment.recipe(name)
    later = [step for step in whole.steps if step.kind in experiment.LATER]
    for label, start in experiment.starts(STARTS[name]).items():
        if later or start.steps != ():
            begun = experiment.recipe(name, start)
            assert [step for step in begun.steps if step.kind in experiment.LATER] == later, label


def test_every_row_of_the_study_and_every_loss_is_read() -> None:
    assert len(study.ROWS) == 48
    for row in study.ROWS:
        assert experiment.recipe("study", row.start).steps[1:] == experiment.recipe("study").steps[1:]
    losses = [
        experiment.only(experiment.recipe("distillation", overrides=changes), Distill).losses
        for changes in distillation.LOSSES.values()
    ]
    assert losses[2] == experiment.only(experiment.recipe("distillation"), Distill).losses
    assert len(losses) == len({str(loss) for loss in losses}) == 20


@pytest.mark.parametrize("name", list(tasks.ROWS))
def test_a_row_of_the_tasks_halves_its_rate_after_another_task(name: str) -> None:
    row = tasks.ROWS[name]
    recipe = experiment.recipe("tasks-student", tasks.STARTS[row.start], overrides=row.overrides)
    step = experiment.only(recipe, Finetune)
    assert step.tasks["rte"].learning_rate == step.tasks["mrpc"].learning_rate == step.learning_rate / 2


def test_a_wrong_key_in_a_start_is_refused() -> None:
    with pytest.raises(ValueError, match="blokcs"):
        Start.model_validate({"blokcs": [1]})
    with pytest.raises(KronpressError, match="did you mean 'tokens'"):
        experiment.recipe("distillation", overrides={"distill.token": 3})
