"""Tables of scores say exactly what was measured, average what can be averaged, and flatter nobody."""

from __future__ import annotations

import dataclasses
import math

import pytest

from kronpress.records import Footprint, Score, TaskRecord
from kronpress.report import RunSummary
from kronpress.report.headline import headlines
from kronpress.report.scores import Grid, models, score_tables
from tests.report.examples import empty, task, tasks


def scores(found: list[TaskRecord]) -> Grid:
    return score_tables(found)[0]


def column(grid: Grid, head: str) -> list[str]:
    return [row[grid.head.index(head)] for row in grid.rows]


def test_a_table_has_every_cell_where_it_belongs() -> None:
    grid = scores(tasks())
    averages = ("average", "average without WNLI", "parameters", "FLOPs per token", "% of teacher's average")
    assert grid.head == ("model", "mrpc", "rte", "wnli", *averages)
    assert grid.rows == (
        ("teacher", "90.00 ± 1.00", "70.00 ± 2.00", "50.00 ± 0.00", "70.00", "80.00", "109.0 M", "218.0 M", "100.00"),
        ("student", "84.20 ± 0.60", "65.10 ± 1.25", "56.34 ± 0.00", "68.55", "74.65", "57.0 M", "114.0 M", "97.92"),
        ("tiny", "80.00 ± 0.50", "60.00 ± 0.50", "40.00 ± 0.50", "60.00", "70.00", "14.4 M", "28.8 M", "85.71"),
    )


def test_without_tasks_there_is_no_table_and_no_headline() -> None:
    assert score_tables([]) == []
    assert headlines(empty()) == []


def test_the_caption_tells_what_was_learned_before() -> None:
    assert (
        "rte: accuracy (3,668 train, 408 dev, after mrpc)."
        in scores([dataclasses.replace(tasks()[1], after="mrpc")]).caption
    )


def test_the_caption_tells_what_the_scores_are() -> None:
    assert scores(tasks()[:2]).caption == (
        "Scores in percent on dev, of copies fine-tuned for each task; the checkpoint itself is not fine-tuned. "
        "Epochs and best runs were selected on the same set, so the scores are optimistic. "
        "Mean ± standard deviation over 3 seeds. "
        "Metrics and examples: mrpc: mean of f1 and accuracy (3,668 train, 408 dev); "
        "rte: accuracy (3,668 train, 408 dev). "
        "Parameters and FLOPs per token are those with the task's head."
    )


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([Score(70), Score(60)], " One seed each. "),
        ([Score(70), Score(60, 1, 3)], " over 3 seeds; a single run where there is no ±. "),
        ([Score(70, 1, 5), Score(60, 1, 3)], " over 3 or 5 seeds. "),
    ],
)
def test_the_caption_counts_seeds(found: list[Score], said: str) -> None:
    assert said in scores([task("rte", dict(zip(("teacher", "student"), found, strict=True)))]).caption


def test_the_caption_counts_runs_that_diverged() -> None:
    whole = task("rte", {"teacher": Score(70), "student": Score(60)})
    lost = dataclasses.replace(whole, models=(whole.models[0], dataclasses.replace(whole.models[1], diverged=2)))
    assert " Runs that diverged are left out: 2 of student on rte." in scores([lost]).caption
    assert "diverged" not in scores([whole]).caption


def test_one_task_is_not_averaged() -> None:
    grid = scores([task("rte", {"teacher": Score(70), "student": Score(63)})])
    assert grid.head == ("model", "rte", "parameters", "FLOPs per token", "% of teacher's score")
    assert grid.rows[1] == ("student", "63.00", "57.0 M", "114.0 M", "90.00")


@pytest.mark.parametrize(
    ("names", "averages"),
    [
        (("wnli",), []),
        (("rte", "mrpc"), ["average"]),
        (("wnli", "rte"), ["average", "average without WNLI"]),
    ],
)
def test_wnli_is_left_out_where_something_is_left(names: tuple[str, ...], averages: list[str]) -> None:
    grid = scores([task(name, {"teacher": Score(70)}) for name in names])
    assert [head for head in grid.head if head.startswith("average")] == averages


def test_a_model_that_missed_a_task_has_no_average() -> None:
    both = {"teacher": Score(90.0), "student": Score(80.0)}
    found = [
        task("wnli", {**both, "first": Score(99)}, step=1),
        task("rte", {**both, "second": Score(98), "third": Score(97)}, step=2),
        task("mrpc", {**both, "second": Score(98), "third": Score(97)}, step=2),
    ]
    grid = scores(found)
    assert column(grid, "model") == ["teacher", "student", "first", "second", "third"]
    assert column(grid, "rte") == ["90.00", "80.00", "–", "98.00", "97.00"]
    assert column(grid, "average") == ["90.00", "80.00", "–", "–", "–"]
    assert column(grid, "average without WNLI") == ["90.00", "80.00", "–", "98.00", "97.00"]
    assert column(grid, "% of teacher's average") == ["100.00", "88.89", "–", "–", "–"]
    assert "averages are of all tasks or not given" in grid.caption
    assert "averages are of all tasks or not given" not in scores(tasks()).caption


def test_teacher_and_student_come_first() -> None:
    found = [task("rte", {"b": Score(1), "student": Score(2)}), task("mrpc", {"a": Score(1), "teacher": Score(2)})]
    assert models(found) == ["teacher", "student", "b", "a"]


def test_a_repeated_task_is_told_apart_by_its_step() -> None:
    early, late = ({"teacher": Score(90), "student": Score(value)} for value in (45, 81))
    grid = scores([task("mrpc", early, step=2), task("rte", early, step=2), task("mrpc", late, step=4)])
    averages = ["average (step 2)", "parameters", "FLOPs per token", "% of teacher's average (step 2)"]
    named = ["mrpc (step 2)", "rte (step 2)", "mrpc (step 4)"]
    assert list(grid.head[1:]) == [*named, *averages, "% of teacher's score (step 4)"]
    assert grid.rows[1] == ("student", "45.00", "45.00", "81.00", "45.00", "57.0 M", "114.0 M", "50.00", "90.00")
    assert "mrpc (step 4): mean of f1 and accuracy" in grid.caption


def test_different_tasks_of_several_steps_are_gathered() -> None:
    found = {"teacher": Score(90), "student": Score(45)}
    grid = scores([task("mrpc", found, step=2), task("rte", found, step=4)])
    assert grid.head[:4] == ("model", "mrpc", "rte", "average")


def test_sizes_that_differ_with_the_head_are_a_range() -> None:
    def sized(name: str, size: int) -> TaskRecord:
        plain = task(name, {"teacher": Score(90)})
        footprint = Footprint(size, 0, 0, 0, 0, None, 20_000_000 + size, 0)
        return dataclasses.replace(plain, models=(dataclasses.replace(plain.models[0], footprint=footprint),))

    assert scores([sized("rte", 1_900_000), sized("mnli", 1_800_000)]).rows[0][4:6] == (
        "1.8 M … 1.9 M",
        "21.8 M … 21.9 M",
    )
    assert scores([sized("rte", 1_900_000), sized("mnli", 1_900_100)]).rows[0][4:6] == ("1.9 M", "21.9 M")


@pytest.mark.parametrize(("teacher", "share"), [(0.0, "–"), (-5.0, "–"), (math.nan, "–"), (50.0, "−4.00")])
def test_nothing_is_a_share_of_a_teacher_that_learned_nothing(teacher: float, share: str) -> None:
    grid = scores([task("cola", {"teacher": Score(teacher), "student": Score(-2.0, 0.5, 2)})])
    assert grid.rows[1][1] == "−2.00 ± 0.50"
    assert column(grid, "% of teacher's score")[1] == share


def test_scores_that_are_not_finite_are_named() -> None:
    grid = scores([task("cola", {"teacher": Score(math.nan, math.nan, 2)}), task("rte", {"teacher": Score(60)})])
    assert grid.rows[0][1:4] == ("not finite", "60.00", "not finite")


def test_data_outside_of_the_distribution_have_a_table_of_their_own() -> None:
    _, grid = score_tables(tasks())
    assert grid.head == ("model", "rte → hans: accuracy")
    assert grid.rows == (("teacher", "54.32 ± 3.00"), ("student", "50.50 ± 0.25")), "tiny was not measured"
    assert "Nothing was selected on these data. Mean ± standard deviation over 3 seeds." in grid.caption
    assert len(score_tables(tasks()[:1])) == 1


def test_elsewhere_too_cells_may_be_missing() -> None:
    both = {"teacher": Score(90), "student": Score(80)}
    found = [task("rte", both, hans={"student": Score(50)}), task("mnli", both, hans={"teacher": Score(60)})]
    _, grid = score_tables(found)
    assert grid.head == ("model", "rte → hans: accuracy", "mnli → hans: accuracy")
    assert grid.rows == (("teacher", "–", "60.00"), ("student", "50.00", "–"))


def test_several_metrics_have_a_table_of_their_own() -> None:
    both = {"teacher": Score(90), "student": Score(80)}
    mrpc, rte = task("mrpc", both), task("rte", both)
    teacher, student = mrpc.models
    parts = {"f1": Score(91.0, 1.0, 3), "accuracy": Score(89.0)}
    mrpc = dataclasses.replace(mrpc, models=(dataclasses.replace(teacher, metrics=parts), student))
    alone = tuple(dataclasses.replace(model, metrics={"accuracy": model.score}) for model in rte.models)
    _, grid = score_tables([mrpc, dataclasses.replace(rte, models=alone)])
    assert grid.head == ("model", "mrpc: f1", "mrpc: accuracy")
    assert grid.rows == (("teacher", "91.00 ± 1.00", "89.00"),)


def test_scores_selected_on_a_part_of_the_training_set_stand_beside_those_selected_on_dev() -> None:
    plain = task("rte", {"teacher": Score(70), "student": Score(60, 1, 3)})
    teacher, student = plain.models
    models_ = (teacher, dataclasses.replace(student, best_on_dev=Score(63, 2, 3)))
    grid, beside = score_tables([dataclasses.replace(plain, models=models_, selected_on="train")])
    assert column(grid, "rte") == ["70.00", "60.00 ± 1.00"]
    assert " Epochs and best runs were selected on a tenth of the training set, held out; dev only" in grid.caption
    assert "optimistic" not in grid.caption and "optimistic" in beside.caption
    assert beside.head == ("model", "rte", "% of teacher's score")
    assert beside.rows == (("teacher", "70.00", "100.00"), ("student", "63.00 ± 2.00", "90.00"))
    assert "as papers report them" in beside.caption and beside.title == "Tasks, best epochs on dev"


def test_tasks_that_were_selected_in_different_ways_are_named() -> None:
    rte, mrpc = (task(name, {"student": Score(60)}) for name in ("rte", "mrpc"))
    caption = scores([dataclasses.replace(rte, selected_on="train"), mrpc]).caption
    assert " rte: Epochs and best runs were selected on a tenth of" in caption
    assert " mrpc: Epochs and best runs were selected on the same set" in caption


def test_a_turned_table_has_the_models_on_top() -> None:
    turned = scores(tasks()[:1]).turned()
    assert turned.head == ("", "teacher", "student", "tiny")
    assert turned.rows[0] == ("mrpc", "90.00 ± 1.00", "84.20 ± 0.60", "80.00 ± 0.50")


def headline(found: list[TaskRecord]) -> list[tuple[str, str]]:
    summary: RunSummary = dataclasses.replace(empty(), tasks=found)
    return [(item.value, item.detail) for item in headlines(summary)]


def test_the_headline_is_what_the_student_keeps() -> None:
    early, late = ({"teacher": Score(90), "student": Score(value)} for value in (45, 81))
    assert headline(tasks()) == [("97.92 %", "70.00 → 68.55, average of 3 tasks")]
    assert headline([task("rte", early)]) == [("50.00 %", "90.00 → 45.00, rte")]
    assert headline([task("rte", early, step=1), task("rte", late, step=2)]) == [("90.00 %", "90.00 → 81.00, rte")]
    assert headline([task("rte", {"teacher": Score(90)})]) == []
