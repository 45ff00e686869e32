"""The scores on tasks as tables, which every form of report shows alike."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from kronpress.records import ModelScore, Score, TaskRecord
from kronpress.report.numbers import MISSING, bit_widths, percent, quantity
from kronpress.report.sizes import DISK, FLOPS, PARAMETERS, quantities

TEACHER, STUDENT = "teacher", "student"
WNLI = "wnli"  # many papers leave it out: fitting its training set leads below chance

_METRICS = "Each metric by itself, in percent; the scores above are means of those that their caption names."
_ON_DEV = (
    "The same runs, each at the epoch that does best on dev, as papers report them, in percent: these scores are "
    "optimistic, and no model saved here has them."
)
_SELECTED = {
    "dev": "Epochs and best runs were selected on the same set, so the scores are optimistic",
    "train": "Epochs and best runs were selected on a tenth of the training set, held out; dev only reports",
}
_BITS = "bits of weights, tables, inputs"
_ELSEWHERE = (
    "Data outside of the distribution: the same models, fine-tuned for the task before the arrow, on the data after "
    "it, in percent. Nothing was selected on these data."
)

Column: TypeAlias = tuple[str, list[str]]
"""Its heading, and a cell for each model."""


@dataclass(frozen=True)
class Grid:
    """A table with a row for each model, and what is to be known about it."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str
    title: str

    def turned(self) -> Grid:
        """Return the same table with a column for each model."""
        (_, *names), *rows = zip(self.head, *self.rows, strict=True)
        return replace(self, head=("", *names), rows=tuple(rows))


def score_tables(tasks: Sequence[TaskRecord]) -> list[Grid]:
    """Return a table of the models' scores, then those selected on dev where something else selected the others, the
    metrics that they are means of, and those outside of the distribution, as far as there are any.

    Where a task occurs twice, tasks and averages are told apart by the number of their step.
    """
    if not tasks:
        return []
    names = models(tasks)
    tables = [_grid(names, list(_columns(tasks, names)), caption=_caption(tasks, names), title="Tasks")]
    if any(task.selected_on != "dev" for task in tasks):
        tables.append(_selected_on_dev(tasks, names))
    for part in _PARTS:
        tables += _parts(tasks, names, part)
    return tables


def models(tasks: Sequence[TaskRecord]) -> list[str]:
    """Return the names of all models: teacher, student, then the baselines as they first occur."""
    names = list(dict.fromkeys(score.model for task in tasks for score in task.models))
    return sorted(names, key=lambda name: [TEACHER, STUDENT].index(name) if name in (TEACHER, STUDENT) else 2)


def labels(tasks: Sequence[TaskRecord]) -> list[str]:
    """Return what each task is called, with its step where a task occurs twice."""
    return [f"{task.task}{_step(task)}" if _repeats(tasks) else task.task for task in tasks]


def scopes(tasks: Sequence[TaskRecord]) -> list[tuple[str, list[TaskRecord]]]:
    """Return the tasks that an average is taken over, with a suffix for their names.

    These are all tasks, in one scope, unless one occurs twice: then they are those of each step.
    """
    if not _repeats(tasks):
        return [("", list(tasks))]
    steps = {task.step: _step(task) for task in tasks}
    return [(suffix, [task for task in tasks if task.step == step]) for step, suffix in steps.items()]


def average(tasks: Sequence[TaskRecord], model: str) -> float | None:
    """Return the mean of a model's scores, None if it did not take part in all of the tasks."""
    values = [score.value for score in (_score(task, model) for task in tasks) if score is not None]
    return statistics.fmean(values) if values and len(values) == len(tasks) else None


def share(tasks: Sequence[TaskRecord], model: str) -> float | None:
    """Return a model's average in percent of the teacher's, None where either is missing or the latter not positive."""
    whole, part = average(tasks, TEACHER), average(tasks, model)
    return None if whole is None or part is None or not whole > 0 else 100 * part / whole


def _repeats(tasks: Sequence[TaskRecord]) -> bool:
    return len({task.task for task in tasks}) < len(tasks)


def _step(task: TaskRecord) -> str:
    return f" (step {task.step})"


def _score(task: TaskRecord, model: str) -> Score | None:
    found = task.of(model)
    return None if found is None else found.score


def metrics_of(task: TaskRecord, model: str) -> dict[str, Score]:
    """Return what one model reaches by each metric, none where the score is the only one.

    What was chosen on the very answers (`oracle_…`) is none.
    """
    score = task.of(model)
    metrics = {} if score is None else _honest(score.metrics)
    return metrics if len(metrics) > 1 else {}


def _elsewhere_of(task: TaskRecord, model: str) -> dict[str, Score]:
    """Return what one model reaches on other data, by their names and metrics."""
    score = task.of(model)
    parts = {} if score is None else score.elsewhere
    return {f"{data}: {metric}": value for data, scores in parts.items() for metric, value in _honest(scores).items()}


def _honest(scores: Mapping[str, Score]) -> dict[str, Score]:
    return {name: score for name, score in scores.items() if not name.startswith("oracle_")}


@dataclass(frozen=True)
class _Part:
    """A part of the scores that has a table of its own, if any model has it."""

    title: str
    caption: str
    sign: str
    of: Callable[[TaskRecord, str], Mapping[str, Score]]


_PARTS = (
    _Part("Tasks, each metric", _METRICS, ": ", metrics_of),
    _Part("Tasks, outside of the distribution", _ELSEWHERE, " → ", _elsewhere_of),
)


def _selected_on_dev(tasks: Sequence[TaskRecord], names: Sequence[str]) -> Grid:
    """Return the table of scores as it would be if dev selected the epochs."""
    best = [replace(task, models=tuple(_at_its_best(model) for model in task.models)) for task in tasks]
    columns = [column for column in _columns(best, names) if column[0] not in (PARAMETERS, FLOPS, DISK, _BITS)]
    return _grid(names, columns, caption=_ON_DEV, title="Tasks, best epochs on dev")


def _at_its_best(model: ModelScore) -> ModelScore:
    return model if model.best_on_dev is None else replace(model, score=model.best_on_dev)


def _grid(names: Sequence[str], columns: Sequence[Column], *, caption: str, title: str) -> Grid:
    heads, cells = zip(*columns, strict=True)
    return Grid(head=("model", *heads), rows=tuple(zip(names, *cells, strict=True)), caption=caption, title=title)


def _columns(tasks: Sequence[TaskRecord], names: Sequence[str]) -> Iterator[Column]:
    for label, task in zip(labels(tasks), tasks, strict=True):
        yield label, [_cell(_score(task, name)) for name in names]
    for suffix, members in scopes(tasks):
        yield from _averages(members, names, suffix)
    staged = _has_stages(tasks)
    for label in (PARAMETERS, FLOPS, DISK) if staged else (PARAMETERS, FLOPS):
        yield label, [_sizes(tasks, name, label) for name in names]
    if staged:
        yield _BITS, [_bits(tasks, name) for name in names]
    for suffix, members in scopes(tasks):
        whole = "average" if len(members) > 1 else "score"
        yield f"% of teacher's {whole}{suffix}", [_percent(share(members, name)) for name in names]


def _averages(tasks: Sequence[TaskRecord], names: Sequence[str], suffix: str) -> Iterator[Column]:
    """Go through the averages of several tasks; that of one is its score."""
    if len(tasks) > 1:
        yield f"average{suffix}", [_percent(average(tasks, name)) for name in names]
    others = [task for task in tasks if task.task != WNLI]
    if 0 < len(others) < len(tasks):
        yield f"average without WNLI{suffix}", [_percent(average(others, name)) for name in names]


def _parts(
    tasks: Sequence[TaskRecord],
    names: Sequence[str],
    part: _Part,
) -> list[Grid]:
    """Return a table of some part of the scores, of those models that have it; none where no model has."""
    columns = {
        f"{label}{part.sign}{key}": [part.of(task, name).get(key) for name in names]
        for label, task in zip(labels(tasks), tasks, strict=True)
        for key in dict.fromkeys(key for name in names for key in part.of(task, name))
    }
    some = [row for row in range(len(names)) if any(scores[row] is not None for scores in columns.values())]
    if not some:
        return []
    cells = [(head, [_cell(scores[row]) for row in some]) for head, scores in columns.items()]
    seeds = _seeds([score for scores in columns.values() for score in scores if score is not None])
    caption = f"{part.caption} {seeds}."
    return [_grid([names[row] for row in some], cells, caption=caption, title=part.title)]


def _cell(score: Score | None) -> str:
    return MISSING if score is None else percent(score.value, deviation=score.deviation)


def _percent(value: float | None) -> str:
    return MISSING if value is None else percent(value)


def _sizes(tasks: Sequence[TaskRecord], name: str, label: str) -> str:
    """Return a model's size, or from which to which, where the heads of the tasks or the steps make a difference."""
    scores = [score for score in (task.of(name) for task in tasks) if score is not None]
    sizes = [size for size in (quantities(score.footprint).get(label) for score in scores) if size is not None]
    if not sizes:
        return MISSING
    sizes.sort(key=lambda size: size.value)
    return " … ".join(dict.fromkeys((quantity(sizes[0]), quantity(sizes[-1]))))


def _has_stages(tasks: Sequence[TaskRecord]) -> bool:
    return any(model.formats is not None for task in tasks for model in task.models)


def _bits(tasks: Sequence[TaskRecord], name: str) -> str:
    """Return the bits at which stages trained a model, a dash for one that is no stage."""
    scores = [score for score in (task.of(name) for task in tasks) if score is not None]
    widths = dict.fromkeys(bit_widths(score.formats) for score in scores if score.formats is not None)
    return " … ".join(widths) or MISSING


def _caption(tasks: Sequence[TaskRecord], names: Sequence[str]) -> str:
    splits = _listed(dict.fromkeys(task.split for task in tasks))
    sentences = [
        f"Scores in percent on {splits}, of copies fine-tuned for each task; the checkpoint itself is not fine-tuned",
        *_selected(tasks),
        _seeds([model.score for task in tasks for model in task.models]),
        "Metrics and examples: "
        + "; ".join(f"{label}: {_measured(task)}" for label, task in zip(labels(tasks), tasks, strict=True)),
        "Parameters and FLOPs per token are those with the task's head",
    ]
    if _has_stages(tasks):
        sentences.append(
            "The size on disk is that of the saved model with the task's head; 32 bits are left as they are"
        )
    lost = [f"{row.diverged} of {row.model} on {task.task}" for task in tasks for row in task.models if row.diverged]
    if lost:
        sentences.append(f"Runs that diverged are left out: {_listed(lost)}")
    if any(task.of(name) is None for task in tasks for name in names):
        sentences.append(f"{MISSING}: did not take part; averages are of all tasks or not given")
    return " ".join(f"{sentence}." for sentence in sentences)


def _selected(tasks: Sequence[TaskRecord]) -> Iterator[str]:
    """Say on what epochs and runs were selected, and of which tasks where that is not the same."""
    ways = dict.fromkeys(task.selected_on for task in tasks)
    for way in ways:
        of = [label for label, task in zip(labels(tasks), tasks, strict=True) if task.selected_on == way]
        yield _SELECTED[way] if len(ways) == 1 else f"{_listed(of)}: {_SELECTED[way]}"


def _measured(task: TaskRecord) -> str:
    metrics = f"mean of {_listed(task.metrics)}" if len(task.metrics) > 1 else task.metrics[0]
    counts = [f"{count:,} {split}" for split, count in task.examples.items()]
    return f"{metrics} ({', '.join([*counts, f'after {task.after}'] if task.after else counts)})"


def _seeds(scores: Sequence[Score]) -> str:
    counts = sorted({score.seeds for score in scores if score.deviation is not None})
    if not counts:
        return "One seed each"
    alone = "" if all(score.deviation is not None for score in scores) else "; a single run where there is no ±"
    return f"Mean ± standard deviation over {_listed(map(str, counts), word='or')} seeds{alone}"


def _listed(words: Iterable[str], *, word: str = "and") -> str:
    *first, last = words
    return f"{', '.join(first)} {word} {last}" if first else last
