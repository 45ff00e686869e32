"""From the manifest and the step reports of a run to what a report shows."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from kronpress import report
from kronpress.checkpoint import BUNDLED
from kronpress.families import is_causal
from kronpress.run.recipe import Recipe

_TAGS = {
    "ForMaskedLM": "fill-mask",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
}
_ROWS = {
    "parameters": (report.PARAMETERS, "parameters"),
    "parameters_untied": (report.PARAMETERS_UNTIED, "parameters"),
    "parameters_without_head": (report.PARAMETERS_WITHOUT_HEAD, "parameters"),
    "parameters_effective": (report.PARAMETERS_EFFECTIVE, "parameters"),
    "flops_per_token": (report.FLOPS, "FLOPs"),
    "block_flops_per_token": (report.BLOCK_FLOPS, "FLOPs"),
    "bytes_on_disk": (report.DISK, "bytes"),
}


def summarize(recipe: Recipe, manifest: Mapping[str, Any], reports: Sequence[Mapping[str, Any]]) -> report.RunSummary:
    """Gather one summary; `reports` are those of the finished steps, in order."""
    evaluations = [item for item in reports if "stage" in item]
    return report.RunSummary(
        title=f"{_name(recipe.model)}, compressed",
        base_model=_name(recipe.model),
        created=str(manifest["created"]),
        description=recipe.description,
        recipe_yaml=recipe.to_yaml(),
        pipeline_tag=manifest.get("pipeline_tag", "text-generation"),
        environment=_environment(manifest),
        steps=[report.StepTime(step["name"], step["seconds"]) for step in manifest["steps"]],
        footprint_before=_footprint(manifest["footprint_before"], bytes_on_disk=True),
        footprint_after=_footprint(manifest.get("footprint_after", {})),
        layer_errors=[_layer_error(module) for item in reports for module in item.get("modules", [])],
        training=list(_losses(reports, "curve")),
        validation=list(_losses(reports, "validation")),
        perplexity=list(_perplexity(evaluations)),
        tasks=list(_tasks(reports)),
        speed=[_speed(row) for item in evaluations for row in item.get("speed", {}).get("rows", [])],
        samples=[report.Sample(**sample) for item in evaluations for sample in item["samples"]],
        notes=[
            *manifest.get("notes", ()),
            *_size_notes(recipe.model, manifest),
            *(text for item in reports for text in item.get("notes", ())),
            *_training_notes(reports),
            *_task_notes(recipe, reports),
            *_fidelity_notes(evaluations),
            *_lambada_notes(evaluations),
        ],
    )


def pipeline_tag(model: PreTrainedModel) -> str:
    """Return the hub's name for what a model does."""
    if is_causal(model):
        return "text-generation"
    name = type(model).__name__
    return next((tag for ending, tag in _TAGS.items() if name.endswith(ending)), "feature-extraction")


def _name(model: str) -> str:
    """Return the model's name without the folders it lies in, which are nobody's business."""
    return Path(model).name if Path(model).exists() else model


def _footprint(values: Mapping[str, Any], *, bytes_on_disk: bool = False) -> dict[str, report.Quantity]:
    known = dict(values)
    if bytes_on_disk and known.get("bytes_on_disk") is None:
        known["bytes_on_disk"] = known["bytes_in_memory"]  # what saving it would write
    return {label: report.Quantity(known[key], unit) for key, (label, unit) in _ROWS.items() if known.get(key)}


def _environment(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return where the run took place, and the most memory that it took, models and text and all."""
    peak = manifest.get("peak_rss_bytes")
    memory = {"peak memory (RSS) of the run": f"{peak / 2**30:.2f} GiB"} if peak else {}
    return {**manifest["environment"], **memory}


def _layer_error(module: Mapping[str, Any]) -> report.LayerError:
    return report.LayerError(module["path"], module["role"], module["relative_error"])


def _losses(reports: Iterable[Mapping[str, Any]], series: str) -> Iterable[report.TrainingPoint]:
    offset = 0
    for item in reports:
        for point in item.get(series, []):
            yield report.TrainingPoint(offset + point["tokens"], point["loss"])
        offset += item.get("tokens", 0) if "curve" in item else 0


def _perplexity(evaluations: Sequence[Mapping[str, Any]]) -> Iterable[report.PerplexityRow]:
    first: set[tuple[str, str]] = set()
    for item in evaluations:
        for pair in item["perplexity"]:
            dense, student = pair["dense"], pair["student"]
            key = (dense["protocol"], dense["text"])
            if key not in first:
                first.add(key)
                yield report.PerplexityRow("dense", *key, dense["perplexity"], 1.0)
            yield report.PerplexityRow(item["stage"], *key, student["perplexity"], pair["ratio"])


def _tasks(reports: Iterable[Mapping[str, Any]]) -> Iterable[report.TaskScores]:
    for number, item in enumerate(reports, start=1):
        for found in item.get("tasks", []):
            facts = {key: found[key] for key in ("task", "split", "metrics", "examples")}
            models = [_model_score(row) for row in found["rows"]]
            yield report.TaskScores(**facts, step=number, models=models, after=found.get("after"))


def _model_score(row: Mapping[str, Any]) -> report.ModelScore:
    elsewhere = [each["also"] for each in row["seeds"]]
    return report.ModelScore(
        model=row["model"],
        score=report.Score(row["score"], row["deviation"], len(row["seeds"])),
        footprint=_footprint(row["footprint"]),
        diverged=row.get("diverged", 0),
        metrics=_metrics([each["scores"] for each in row["seeds"]]),
        elsewhere={data: _metrics([each[data] for each in elsewhere]) for data in elsewhere[0]},
    )


def _metrics(seeds: Sequence[Mapping[str, float]]) -> dict[str, report.Score]:
    """Gather each metric over the seeds, without what was chosen on the very answers (`oracle_…`)."""
    found = {name: [each[name] for each in seeds] for name in seeds[0] if not name.startswith("oracle_")}
    return {
        name: report.Score(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))
        for name, values in found.items()
    }


def _speed(row: Mapping[str, Any]) -> report.SpeedRow:
    return report.SpeedRow(
        row["phase"], row["dense"], row["student"], row["ratio"], low=row["ratio_min"], high=row["ratio_max"]
    )


def _size_notes(model: str, manifest: Mapping[str, Any]) -> Iterable[str]:
    bundled = BUNDLED.get(model.removeprefix("bundled:"))
    if model.endswith(".gguf") or (bundled is not None and bundled.pattern.endswith(".gguf")):
        yield (
            f"sizes are those of {manifest['dtype']} weights, before as after; "
            "the quantized file that the base model came in is smaller"
        )


def _training_notes(reports: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    for item in reports:
        if "curve" in item and item["tokens_per_second"]:
            yield (
                f"trained on {item['tokens']:,} tokens at {item['tokens_per_second']:,.0f} tokens/s, with "
                f"{item['peak_rss_bytes'] / 2**30:.1f} GiB of memory at most"
            )


def _task_notes(recipe: Recipe, reports: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    for index, item in enumerate(reports):
        if item.get("tasks") and any(step.changes_student for step in recipe.steps[index + 1 : len(reports)]):
            yield f"the task scores of step {index + 1} are those of the student as it was then; later steps changed it"


def _fidelity_notes(evaluations: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    for item in evaluations:
        if "fidelity" in item:
            found = item["fidelity"]
            yield (
                f"{item['stage']}: outputs have cosine {found['cosine']:.4f} with the dense model's, "
                f"relative error {found['relative_error']:.4f}"
            )


def _lambada_notes(evaluations: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    for item in evaluations:
        for pair in item["perplexity"]:
            if "accuracy" in pair["student"]:
                before, after = (pair[model]["accuracy"] for model in ("dense", "student"))
                yield (
                    f"{item['stage']}: guesses {after:.1f} % of LAMBADA's last words, "
                    f"the dense model {before:.1f} % ({pair['student']['passages']:,} passages)"
                )
