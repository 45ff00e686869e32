"""What every task on the shelf must satisfy."""

from __future__ import annotations

import importlib
import pkgutil
import re
import typing

import numpy as np
import pytest

import kronpress.tasks
from kronpress.errors import KronpressError
from kronpress.tasks import METRICS, TASKS, ClassificationTask, Example, Head, RegressionTask, SentenceTask, Task
from tests.tiny import tiny_tokenizer

NAMES = pytest.mark.parametrize("name", list(TASKS))
SENTENCES = [name for name, task in TASKS.items() if isinstance(task, SentenceTask)]
OF_SENTENCES = pytest.mark.parametrize("name", SENTENCES)


def module_of(task: Task[object, object]) -> str:
    """The description of the file that holds a task."""
    for found in pkgutil.iter_modules(kronpress.tasks.__path__, "kronpress.tasks."):
        module = importlib.import_module(found.name)
        if any(value is task for value in vars(module).values()):
            return module.__doc__ or ""
    raise AssertionError(f"no file of kronpress.tasks holds {task.name}")


def examples_of(task: SentenceTask) -> list[Example]:
    """Two labeled examples of each class, or six numbers, in two groups where the task has groups."""
    labels = range(task.outputs) if isinstance(task, ClassificationTask) else (task.low, 0.3, task.high)
    group = "some" if task.columns.group else None
    second = "two" if task.columns.second else None
    return [Example("one", second, float(label), str(label), group) for label in [*labels, *labels]]


def outputs_for(task: SentenceTask, example: Example) -> np.ndarray:
    """What a head would give that knows the answer."""
    return np.array([example.label]) if isinstance(task, RegressionTask) else np.eye(task.outputs)[int(example.label)]


@NAMES
def test_it_is_called_what_it_is_registered_as(name: str) -> None:
    assert TASKS[name].name == name
    assert re.fullmatch(r"[a-z0-9.-]+", name)


@NAMES
def test_it_says_where_it_comes_from(name: str) -> None:
    assert re.search(r"\b(19|20)\d\d\b", module_of(TASKS[name]))


@NAMES
def test_its_settings_make_sense(name: str) -> None:
    task = TASKS[name]
    assert task.metrics and len(set(task.metrics)) == len(task.metrics)
    assert 1 <= task.max_length <= 512
    assert task.outputs >= 1
    assert task.head in typing.get_args(Head)
    assert task.score(dict.fromkeys(task.metrics, 40.0)) == 40.0


@NAMES
def test_a_source_that_is_not_there_is_an_error(name: str) -> None:
    with pytest.raises(KronpressError, match="nowhere"):
        TASKS[name].read("nowhere/at/all", "dev")


@OF_SENTENCES
def test_its_metrics_are_known(name: str) -> None:
    assert set(TASKS[name].metrics) <= set(METRICS)


@OF_SENTENCES
def test_right_answers_score_one_hundred(name: str) -> None:
    task = TASKS[name]
    examples = examples_of(task)
    features = task.features(examples, tiny_tokenizer(), max_length=task.max_length)
    answers = task.answers(examples, features, [outputs_for(task, example) for example in examples])
    assert answers == [example.label for example in examples]
    scores = task.scores(examples, answers)
    assert list(scores)[: len(task.metrics)] == list(task.metrics)
    assert all(score == pytest.approx(100) for score in scores.values())
    assert len(scores) == len(task.metrics) * (2 if task.columns.group else 1)


@OF_SENTENCES
def test_wrong_answers_score_less(name: str) -> None:
    task = TASKS[name]
    examples = examples_of(task)
    wrong = [examples[index - 1].label for index in range(len(examples))]
    assert task.score(task.scores(examples, wrong)) < 90


@OF_SENTENCES
def test_what_it_writes_it_reads_again(name: str, tmp_path: typing.Any) -> None:
    task = TASKS[name]
    columns = task.columns
    for example in examples_of(task):
        fields = {columns.first[0]: "one", columns.label[0]: task.spell(example.label)}
        fields |= {names[0]: "two" for names in (columns.second, columns.group) if names}
        (tmp_path / "dev.tsv").write_text("\t".join(fields) + "\n" + "\t".join(fields.values()) + "\n")
        assert [row.label for row in task.read(str(tmp_path / "dev.tsv"), "dev")] == [example.label]


@OF_SENTENCES
def test_the_tasks_whose_models_answer_it_exist(name: str) -> None:
    task = TASKS[name]
    for other, classes in task.trained_on.items():
        assert len(classes) == TASKS[other].outputs
        assert set(classes) == set(range(task.outputs))
    assert "train" in task.files or task.trained_on
