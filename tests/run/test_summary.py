"""The reports of the steps become what a report shows."""

from __future__ import annotations

import dataclasses
from typing import Any

from kronpress.footprint import Footprint
from kronpress.report import RunSummary, Score, model_card, render
from kronpress.run.recipe import Recipe
from kronpress.run.summary import summarize

SIZE = Footprint(109_000_000, 132_000_000, 109_000_000, 109_000_000, 436_000_000, None, 218_000_000, 170_000_000)
MANIFEST = {
    "created": "2026-03-14",
    "environment": {},
    "steps": [],
    "footprint_before": dataclasses.asdict(SIZE),
}
FINETUNE = {"step": "finetune", "tasks": "mrpc"}
DISTILL = {"step": "distill", "tokens": 4096}
DISTILLED = {
    "tokens": 4096,
    "tokens_per_second": 1000.0,
    "peak_rss_bytes": 2**30,
    "curve": [{"tokens": 2048, "loss": 2.0}],
    "validation": [],
}


def row(model: str, scores: list[float], *, hans: list[float] | None = None, seeded: bool = True) -> dict[str, Any]:
    """The row of one model as the finetune step writes it, with scores of each seed."""
    training = {"tokens": 10**9, "tokens_per_second": 1.0, "curve": [{"tokens": 5, "loss": 9.0}], "peak_rss_bytes": 1}
    mean = sum(scores) / len(scores)
    seeds = [
        {
            "seed": seed if seeded else None,
            "score": score,
            "scores": {"f1": score + 1, "accuracy": score - 1},
            "also": {"hans": {"accuracy": hans[seed], "accuracy/lexical_overlap": 1.0}} if hans else {},
            **({"step": 9, "epoch": 1.0, "training": training} if seeded else {}),
        }
        for seed, score in enumerate(scores)
    ]
    return {
        "model": model,
        "losses": {"cross_entropy": "cross_entropy"},
        "footprint": dataclasses.asdict(SIZE),
        "score": mean,
        "deviation": 1.5 if len(scores) > 1 else None,
        "scores": {"f1": mean + 1, "accuracy": mean - 1},
        "best_seed": 0 if seeded else None,
        "seeds": seeds,
    }


def finetuned(*rows: dict[str, Any], task: str = "mrpc") -> dict[str, Any]:
    examples = {"train": 3668, "dev": 408}
    found = {"task": task, "split": "dev", "metrics": ["f1", "accuracy"], "examples": examples, "rows": list(rows)}
    return {"tasks": [found], "peak_rss_bytes": 2**31}


def summary(*reports: dict[str, Any]) -> RunSummary:
    """Summarize a run of finetune and distill steps with these reports."""
    steps = [FINETUNE if "tasks" in report else DISTILL for report in reports]
    return summarize(Recipe.model_validate({"model": "some/model", "steps": steps}), MANIFEST, reports)


def test_scores_are_taken_as_the_step_reports_them() -> None:
    found = summary(
        DISTILLED,
        finetuned(row("teacher", [90.0], seeded=False), row("student", [84.0, 80.0, 82.0])),
    )
    (task,) = found.tasks
    assert (task.task, task.step, task.split, list(task.metrics)) == ("mrpc", 2, "dev", ["f1", "accuracy"])
    assert task.examples == {"train": 3668, "dev": 408}
    assert [(each.model, each.score) for each in task.models] == [
        ("teacher", Score(90.0)),
        ("student", Score(82.0, 1.5, 3)),
    ]
    shown = {label: size.value for label, size in task.models[0].footprint.items()}
    assert shown["parameters"] == 109e6
    assert shown["FLOPs per token"] == 218e6


def test_each_metric_is_averaged_over_the_seeds() -> None:
    found = summary(finetuned(row("teacher", [90.0], hans=[60.0]), row("student", [84, 80, 82], hans=[50, 54, 52])))
    teacher, student = found.tasks[0].models
    cue = "accuracy/lexical_overlap"
    assert teacher.metrics == {"f1": Score(91.0), "accuracy": Score(89.0)}
    assert student.metrics == {"f1": Score(83.0, 2.0, 3), "accuracy": Score(81.0, 2.0, 3)}
    assert teacher.elsewhere == {"hans": {"accuracy": Score(60.0), cue: Score(1.0)}}
    assert student.elsewhere == {"hans": {"accuracy": Score(52.0, 2.0, 3), cue: Score(1.0, 0.0, 3)}}


def test_what_was_chosen_on_the_answers_is_not_reported() -> None:
    found = row("teacher", [90.0])
    found["seeds"][0]["scores"]["oracle_f1"] = 99.0
    assert list(summary(finetuned(found)).tasks[0].models[0].metrics) == ["f1", "accuracy"]


def test_a_finetune_step_adds_nothing_to_the_curves_and_notes_of_the_others() -> None:
    alone = summary(DISTILLED)
    beside = summary(finetuned(row("teacher", [90.0])), DISTILLED, finetuned(task="rte"))
    assert [point.tokens for point in beside.training] == [2048]
    assert (beside.training, beside.validation, beside.notes[:1]) == (alone.training, alone.validation, alone.notes)


def test_scores_of_a_student_that_changed_afterwards_are_noted() -> None:
    tuned = finetuned(row("teacher", [90.0]))
    changed = "the task scores of step 1 are those of the student as it was then; later steps changed it"
    assert [note for note in summary(tuned, DISTILLED, tuned).notes if "task" in note] == [changed]
    assert not summary(tuned, tuned).notes


def test_all_tasks_of_all_steps_are_gathered() -> None:
    tuned = [finetuned(row("teacher", [90.0]), task=name) for name in ("mrpc", "rte", "mrpc")]
    found = summary(tuned[0], DISTILLED, tuned[1], tuned[2])
    assert [(task.task, task.step) for task in found.tasks] == [("mrpc", 1), ("rte", 3), ("mrpc", 4)]
    assert "| model | mrpc (step 1) | rte (step 3) | mrpc (step 4) |" in model_card(found, plain=True)


def test_a_run_without_tasks_shows_none() -> None:
    found = summary(DISTILLED)
    assert found.tasks == []
    assert "Tasks" not in render(found)
    assert "tasks" not in model_card(found, plain=True)


def test_the_memory_of_the_run_is_not_told_as_that_of_the_model() -> None:
    manifest = {
        **MANIFEST,
        "dtype": "float32",
        "footprint_after": dataclasses.asdict(SIZE),
        "peak_rss_bytes": 3 * 2**30,
    }
    summary = summarize(Recipe(steps=[DISTILL]), manifest, [])
    assert summary.footprint_after.keys() <= summary.footprint_before.keys()
    assert summary.environment["peak memory (RSS) of the run"] == "3.00 GiB"
    size, environment = (
        render(summary).split(f"<h2>{title}</h2>")[1].split("<h2>")[0] for title in ("Footprint", "Environment")
    )
    assert "peak memory" in environment
    assert "peak memory" not in size
