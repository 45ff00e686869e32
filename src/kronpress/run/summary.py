"""From the manifest and the records of a run to what a report shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import TypeVar

from transformers import PreTrainedModel

from kronpress import report
from kronpress.checkpoint import BUNDLED
from kronpress.families import is_causal
from kronpress.records import (
    EvaluationRecord,
    FactorizeRecord,
    FinetuneRecord,
    Footprint,
    QuantizationRecord,
    ReconstructRecord,
    Record,
    StepReport,
    TaskRecord,
    TrainingPoint,
    TrainingRecord,
    TruncateRecord,
)
from kronpress.run.manifest import Manifest
from kronpress.run.recipe import Recipe

_TAGS = {
    "ForMaskedLM": "fill-mask",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
}
R = TypeVar("R", bound=Record)


def summarize(recipe: Recipe, manifest: Manifest, reports: Sequence[StepReport]) -> report.RunSummary:
    """Gather one summary; `reports` are those of the finished steps, in order."""
    evaluations = _records(reports, EvaluationRecord)
    changes = _records(reports, FactorizeRecord)
    return report.RunSummary(
        title=f"{_name(recipe.model)}, compressed",
        base_model=_name(recipe.model),
        created=manifest.created,
        description=recipe.description,
        recipe_yaml=recipe.to_yaml(),
        pipeline_tag=manifest.pipeline_tag or "text-generation",
        environment=_environment(manifest),
        steps=[report.StepTime(step.name, step.seconds) for step in manifest.steps],
        footprint_before=_saved(manifest.footprint_before),
        footprint_after=manifest.footprint_after,
        layers=[module for change in changes for module in change.modules],
        truncated=_records(reports, TruncateRecord),
        reconstructed=_records(reports, ReconstructRecord),
        quantized=[
            report.QuantizedStep(number, step.record)
            for number, step in enumerate(reports, start=1)
            if isinstance(step.record, QuantizationRecord)
        ],
        training=list(_losses(reports, lambda record: record.curve)),
        validation=list(_losses(reports, lambda record: record.validation)),
        perplexity=list(_perplexity(evaluations)),
        texts=[report.TextSetRow(record.stage, record.texts) for record in evaluations if record.texts],
        lm_eval=[report.LmEvalRow(record.stage, scores) for record in evaluations for scores in record.lm_eval],
        tasks=list(_tasks(reports)),
        speed=[row for record in evaluations if record.speed for row in record.speed.rows],
        samples=[sample for record in evaluations for sample in record.samples],
        notes=[
            *manifest.notes,
            *_size_notes(recipe.model, manifest),
            *(text for change in changes for text in change.notes),
            *_depth_notes(_records(reports, TruncateRecord)),
            *map(_reconstruct_note, _records(reports, ReconstructRecord)),
            *_training_notes(reports),
            *_task_notes(recipe, reports),
            *_fidelity_notes(evaluations),
            *_lambada_notes(evaluations),
        ],
    )


def _records(reports: Sequence[StepReport], kind: type[R]) -> list[R]:
    """Return the records of one kind."""
    return [step.record for step in reports if isinstance(step.record, kind)]


def pipeline_tag(model: PreTrainedModel) -> str:
    """Return the hub's name for what a model does."""
    if is_causal(model):
        return "text-generation"
    name = type(model).__name__
    return next((tag for ending, tag in _TAGS.items() if name.endswith(ending)), "feature-extraction")


def _name(model: str) -> str:
    """Return the model's name without the folders it lies in."""
    return Path(model).name if Path(model).exists() else model


def _saved(size: Footprint) -> Footprint:
    """Return the size of a model that was not saved, with what saving it would write."""
    return size if size.bytes_on_disk is not None else replace(size, bytes_on_disk=size.bytes_in_memory)


def _environment(manifest: Manifest) -> dict[str, str]:
    """Return where the run took place, and the most memory that it took, models and text and all."""
    peak = manifest.peak_rss_bytes
    memory = {"peak memory (RSS) of the run": f"{peak / 2**30:.2f} GiB"} if peak else {}
    return {**manifest.environment, **memory}


def _losses(
    reports: Sequence[StepReport], series: Callable[[TrainingRecord], Sequence[TrainingPoint]]
) -> Iterable[TrainingPoint]:
    """Go through the points of all trainings, each after the tokens of those before it."""
    offset = 0
    for record in _records(reports, TrainingRecord):
        for point in series(record):
            yield TrainingPoint(offset + point.tokens, point.loss)
        offset += record.tokens


def _perplexity(evaluations: Sequence[EvaluationRecord]) -> Iterable[report.PerplexityRow]:
    """Go through the perplexities of all stages, the dense model's where a protocol and text occur first."""
    first: set[tuple[str, str]] = set()
    for record in evaluations:
        for pair in (*record.perplexity, *((record.lambada,) if record.lambada else ())):
            key = (pair.dense.protocol, pair.dense.text)
            if key not in first:
                first.add(key)
                yield report.PerplexityRow("dense", *key, pair.dense.perplexity, 1.0)
            yield report.PerplexityRow(record.stage, *key, pair.student.perplexity, pair.ratio)


def _tasks(reports: Sequence[StepReport]) -> Iterable[TaskRecord]:
    for number, step in enumerate(reports, start=1):
        if isinstance(step.record, FinetuneRecord):
            yield from (replace(task, step=number) for task in step.record.tasks)


def _size_notes(model: str, manifest: Manifest) -> Iterable[str]:
    bundled = BUNDLED.get(model.removeprefix("bundled:"))
    if model.endswith(".gguf") or (bundled is not None and bundled.is_quantized):
        yield (
            f"sizes before are those of {manifest.dtype} weights; "
            "the quantized file that the base model came in is smaller"
        )


def _depth_notes(records: Sequence[TruncateRecord]) -> Iterable[str]:
    for record in records:
        blocks = ", ".join(map(str, record.kept))
        yield f"{len(record.kept)} of {record.depth} blocks stay ({record.method['blocks']['name']}): {blocks}"
        if record.repair is not None:
            better = record.repair.repaired < record.repair.without
            yield (
                f"repairing the blocks that stay brings {record.repair.without:.4g} to {record.repair.repaired:.4g} on "
                f"calibration text that they were not fitted to, and is {'kept' if better else 'left out'}"
            )


def _reconstruct_note(record: ReconstructRecord) -> str:
    better = [entry for entry in record.blocks if entry.after < entry.before]
    mean = fmean(entry.after / entry.before for entry in better) if better else 1.0
    return (
        f"training the blocks one by one brought {len(better)} of {len(record.blocks)} nearer to the dense ones, their "
        f"squared errors to {mean:.0%} on average; each is judged on text that it was not trained on"
    )


def _training_notes(reports: Sequence[StepReport]) -> Iterable[str]:
    for step in reports:
        record = step.record
        if isinstance(record, TrainingRecord) and record.tokens_per_second:
            yield (
                f"trained on {record.tokens:,} tokens at {record.tokens_per_second:,.0f} tokens/s, "
                f"{record.device_hours:.3g} device-hours ({record.devices} × {record.device}), with "
                f"{step.peak_rss_bytes / 2**30:.1f} GiB of memory at most"
            )
        if isinstance(record, TrainingRecord) and record.adapters is not None:
            yield f"{record.adapters.told()}; in the end they were merged"


def _task_notes(recipe: Recipe, reports: Sequence[StepReport]) -> Iterable[str]:
    for number, step in enumerate(reports, start=1):
        later = recipe.steps[number : len(reports)]
        if isinstance(step.record, FinetuneRecord) and any(other.changes_student for other in later):
            yield f"the task scores of step {number} are those of the student as it was then; later steps changed it"


def _fidelity_notes(evaluations: Sequence[EvaluationRecord]) -> Iterable[str]:
    for record in evaluations:
        if record.fidelity is not None:
            yield (
                f"{record.stage}: outputs have cosine {record.fidelity.cosine:.4f} with the dense model's, "
                f"relative error {record.fidelity.relative_error:.4f}"
            )


def _lambada_notes(evaluations: Sequence[EvaluationRecord]) -> Iterable[str]:
    for record in evaluations:
        if record.lambada is not None:
            student, dense = record.lambada.student, record.lambada.dense
            yield (
                f"{record.stage}: guesses {student.accuracy:.1f} % of LAMBADA's last words, "
                f"the dense model {dense.accuracy:.1f} % ({student.passages:,} passages)"
            )
