"""The records of the steps become what a report shows."""

from __future__ import annotations

import dataclasses

from kronpress.records import (
    AdapterRecord,
    EvaluationRecord,
    Fidelity,
    FinetuneRecord,
    Footprint,
    LambadaComparison,
    LambadaScore,
    LmEvalComparison,
    LmEvalScore,
    ModelScore,
    Perplexity,
    PerplexityComparison,
    QuantizationRecord,
    Sample,
    Score,
    SeedScore,
    SpeedComparison,
    SpeedRow,
    StepRecord,
    StepReport,
    TaskRecord,
    TrainingPoint,
    TrainingRecord,
)
from kronpress.report import PerplexityRow, QuantizedStep, RunSummary, model_card, quantities, render
from kronpress.report.scores import metrics_of
from kronpress.run.manifest import Manifest
from kronpress.run.recipe import Recipe
from kronpress.run.summary import summarize

SIZE = Footprint(109_000_000, 132_000_000, 109_000_000, 109_000_000, 436_000_000, None, 218_000_000, 170_000_000)
MANIFEST = Manifest(
    recipe_sha256="0",
    created="2026-03-14",
    environment={},
    sources={},
    steps=(),
    checkpoint=None,
    finished=False,
    dtype="float32",
    footprint_before=SIZE,
    data={},
    model={},
)
FINETUNE = {"step": "finetune", "tasks": "mrpc"}
DISTILL = {"step": "distill", "tokens": 4096}
EVALUATE = {"step": "evaluate"}
DISTILLED = TrainingRecord(4096, 8, 4.0, 1000.0, 2**30, (TrainingPoint(2048, 2.0),))


def row(model: str, scores: list[float], *, hans: list[float] | None = None, seeded: bool = True) -> ModelScore:
    """The row of one model as the finetune step records it, with scores of each seed."""
    training = TrainingRecord(10**9, 8, 4.0, 1.0, 1, (TrainingPoint(5, 9.0),))
    seeds = tuple(
        SeedScore(
            seed if seeded else None,
            score,
            {"f1": score + 1, "accuracy": score - 1},
            {"hans": {"accuracy": hans[seed], "accuracy/lexical_overlap": 1.0}} if hans else {},
            **({"step": 9, "epoch": 1.0, "training": training} if seeded else {}),
        )
        for seed, score in enumerate(scores)
    )
    return ModelScore.of(model, SIZE, seeds)


def finetuned(*models: ModelScore, task: str = "mrpc") -> FinetuneRecord:
    return FinetuneRecord((TaskRecord(task, "dev", ("f1", "accuracy"), {"train": 3668, "dev": 408}, models),))


def summary(*records: StepRecord) -> RunSummary:
    """Summarize a run of steps with these records."""
    steps = [{FinetuneRecord: FINETUNE, TrainingRecord: DISTILL}.get(type(record), EVALUATE) for record in records]
    recipe = Recipe.model_validate({"model": "some/model", "steps": steps})
    reports = [StepReport(step["step"], 5.0, 2**31, record) for step, record in zip(steps, records, strict=True)]
    return summarize(recipe, MANIFEST, reports)


def test_scores_are_taken_as_the_step_reports_them() -> None:
    found = summary(
        DISTILLED,
        finetuned(row("teacher", [90.0], seeded=False), row("student", [84.0, 80.0, 82.0])),
    )
    (task,) = found.tasks
    assert (task.task, task.step, task.split, list(task.metrics)) == ("mrpc", 2, "dev", ["f1", "accuracy"])
    assert task.examples == {"train": 3668, "dev": 408}
    assert [(model.model, model.score) for model in task.models] == [
        ("teacher", Score(90.0)),
        ("student", Score(82.0, 2.0, 3)),
    ]
    shown = {label: size.value for label, size in quantities(task.models[0].footprint).items()}
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
    score = row("teacher", [90.0])
    score = dataclasses.replace(score, metrics={**score.metrics, "oracle_f1": Score(99.0)})
    (task,) = summary(finetuned(score)).tasks
    assert list(metrics_of(task, "teacher")) == ["f1", "accuracy"]
    assert "oracle" not in render(summary(finetuned(score)))


def test_a_finetune_step_adds_nothing_to_the_curves_and_notes_of_the_others() -> None:
    alone = summary(DISTILLED)
    beside = summary(finetuned(row("teacher", [90.0])), DISTILLED, finetuned(task="rte"))
    assert [point.tokens for point in beside.training] == [2048]
    assert (beside.training, beside.validation, beside.notes[:1]) == (alone.training, alone.validation, alone.notes)


def test_adapters_are_told_with_their_share_and_what_took_none() -> None:
    adapters = AdapterRecord("lora", 16, 2_000, 100_000, 4, ("up.right", "down.right"))
    found = summary(dataclasses.replace(DISTILLED, adapters=adapters))
    assert found.notes[-1] == (
        "lora adapters of rank 16 on 4 tensors learn, 2,000 numbers (2.00% of the 100,000 of the model, which are "
        "frozen); 2 took none, being no larger than theirs, as up.right; in the end they were merged"
    )


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


def test_quantize_steps_are_numbered_as_in_the_recipe() -> None:
    record = QuantizationRecord({}, {}, (), 5, {"weights": 5})
    found = summary(DISTILLED, record, DISTILLED, record)
    assert found.quantized == [QuantizedStep(2, record), QuantizedStep(4, record)]
    assert summary(DISTILLED).quantized == []


def test_a_run_without_tasks_shows_none() -> None:
    found = summary(DISTILLED)
    assert found.tasks == []
    assert "Tasks" not in render(found)
    assert "tasks" not in model_card(found, plain=True)


def test_the_memory_of_the_run_is_not_told_as_that_of_the_model() -> None:
    manifest = MANIFEST.model_copy(update={"footprint_after": SIZE, "peak_rss_bytes": 3 * 2**30})
    summary = summarize(Recipe(steps=[DISTILL]), manifest, [])
    assert quantities(summary.footprint_after).keys() <= quantities(summary.footprint_before).keys()
    assert summary.environment["peak memory (RSS) of the run"] == "3.00 GiB"
    size, environment = (
        render(summary).split(f"<h2>{title}</h2>")[1].split("<h2>")[0] for title in ("Footprint", "Environment")
    )
    assert "peak memory" in environment
    assert "peak memory" not in size


def evaluated(stage: str, perplexity: float) -> EvaluationRecord:
    """A record of an evaluation with every part."""
    dense, student = (Perplexity("tokens-512", "text", value, 511, 1, 0.5) for value in (30.0, perplexity))
    guesses = [LambadaScore("lambada-openai", "passages", 40.0, accuracy, 1000, 0, 0.5) for accuracy in (50.0, 25.0)]
    choices = [LmEvalScore("piqa", "acc", "none", value, 0.01, 10, 0, "1.0", "0.4.13") for value in (0.75, 0.5)]
    return EvaluationRecord(
        stage,
        "bf16",
        (PerplexityComparison.of(dense, student),),
        LambadaComparison.of(*guesses),
        (LmEvalComparison(*choices),),
        Fidelity(0.9, 0.1, 8),
        SpeedComparison((SpeedRow("prefill", 1.0, 2.0, 2.0, 1.5, 2.5),), 256, 32, 5, 2, "cpu", "float32", "float32"),
        (Sample("a", "b", "c"),),
    )


def test_evaluations_follow_one_another_and_the_dense_model_is_told_once() -> None:
    found = summary(evaluated("pruned", 60.0), DISTILLED, evaluated("distilled", 45.0))
    lambada = ("lambada-openai", "passages", 40.0, 1.0)
    assert found.perplexity == [
        PerplexityRow("dense", "tokens-512", "text", 30.0, 1.0),
        PerplexityRow("pruned", "tokens-512", "text", 60.0, 2.0),
        PerplexityRow("dense", *lambada),
        PerplexityRow("pruned", *lambada),
        PerplexityRow("distilled", "tokens-512", "text", 45.0, 1.5),
        PerplexityRow("distilled", *lambada),
    ]
    assert [row.ratio for row in found.speed] == [2.0, 2.0]
    assert found.samples == [Sample("a", "b", "c")] * 2
    assert "pruned: outputs have cosine 0.9000 with the dense model's, relative error 0.1000" in found.notes
    assert "distilled: guesses 25.0 % of LAMBADA's last words, the dense model 50.0 % (1,000 passages)" in found.notes


def test_tasks_of_lm_eval_stand_in_every_form_of_report() -> None:
    found = summary(evaluated("pruned", 60.0))
    for text in (model_card(found, plain=True), render(found)):
        assert all(shown in text for shown in ("Tasks of lm-eval", "piqa", "0.750 ± 0.0100", "0.500 ± 0.0100"))
    assert "lm-eval" not in model_card(summary(DISTILLED), plain=True) + render(summary(DISTILLED))


def test_the_curves_of_several_steps_are_one() -> None:
    again = dataclasses.replace(DISTILLED, validation=(TrainingPoint(1000, 3.0),))
    found = summary(DISTILLED, again)
    assert found.training == [TrainingPoint(2048, 2.0), TrainingPoint(4096 + 2048, 2.0)]
    assert found.validation == [TrainingPoint(4096 + 1000, 3.0)]
