"""Experiments as data: recipes that `kronpress run` reads, and tables of what is varied, in benchmarks/experiments."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from itertools import dropwhile
from pathlib import Path
from typing import Any

import torch
from pydantic import model_validator

from kronpress.checkpoint import load_with_tokenizer
from kronpress.data import Corpus
from kronpress.distill import Distill
from kronpress.evaluate import Evaluate
from kronpress.finetune import Finetune
from kronpress.notation import read_yaml
from kronpress.pretrain import Pretrain
from kronpress.run import Recipe, read_recipe
from kronpress.run.inputs import ready
from kronpress.step import Step, Workbench
from kronpress.validation import Checked

FOLDER = Path(__file__).with_name("experiments")
LATER = tuple(
    step.kind for step in (Pretrain, Distill, Evaluate, Finetune)
)  # steps that come when the student has its shape


class Start(Checked):
    """How the student of a recipe begins, if not as the recipe says: given as a list of steps.

    Attributes:
        steps: in place of those that the recipe begins with, before it measures or trains.
    """

    steps: tuple[dict[str, Any], ...] | None = None

    @model_validator(mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return {"steps": value} if isinstance(value, list) else value


def table(name: str) -> Any:
    """Return what a file of the folder holds."""
    path = FOLDER / f"{name}.yaml"
    return read_yaml(path.read_text(encoding="utf-8"), place=str(path))


def starts(content: Mapping[str, Any]) -> dict[str, Start]:
    """Return the starts of a table by name."""
    return {name: Start.model_validate(fields) for name, fields in content.items()}


def recipe(name: str, start: Start | None = None, *, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Return a recipe of the folder.

    Args:
        name: of the file.
        start: how the student begins, if not as the recipe says.
        overrides: values by their keys, `distill.tokens` for instance.
    """
    steps = table(name)["steps"]
    if start is not None and start.steps is not None:
        steps = [*start.steps, *dropwhile(lambda step: step["step"] not in LATER, steps)]
    changes = [f"{key}={json.dumps(value)}" for key, value in (overrides or {}).items()]
    return read_recipe(FOLDER / f"{name}.yaml", fields={"steps": steps}, overrides=changes)


def only(recipe: Recipe, kind: type[Step]) -> Any:
    """Return the one step of a kind."""
    (step,) = (step for step in recipe.steps if isinstance(step, kind))
    return step


def make(recipe: Recipe, bench: Workbench) -> list[Any]:
    """Give the student its shape: run the steps before any that measures or trains; return their records."""
    shaping: list[Step] = []
    for step in recipe.steps:
        if step.kind in LATER:
            break
        shaping.append(step)
    return [step.run(bench) for step in shaping]


def slug(name: str) -> str:
    """Return a name as that of a file."""
    return "".join(letter if letter.isalnum() else "-" for letter in name).strip("-").lower()


def workbench(name: str, text: str, folder: Path) -> Workbench:
    """Open a dense model as the teacher and as the student to be, with a text to learn from."""
    teacher, tokenizer = load_with_tokenizer(name)
    teacher, corpus = ready(teacher), Corpus("text", text)
    torch.manual_seed(0)
    return Workbench(copy.deepcopy(teacher), teacher, tokenizer, corpus, corpus, folder)
