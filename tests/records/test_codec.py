"""Records come back from JSON as they were, and a damaged or newer file says what is wrong with it."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from kronpress.errors import KronpressError
from kronpress.records import (
    FORMAT_VERSION,
    AdapterRecord,
    EvaluationRecord,
    FactorizeRecord,
    Fidelity,
    FinetuneRecord,
    Footprint,
    InputRange,
    LambadaComparison,
    LambadaScore,
    LayerChange,
    LmEvalComparison,
    LmEvalScore,
    ModelScore,
    NumberFormat,
    NumberFormats,
    Perplexity,
    PerplexityComparison,
    QuantizationRecord,
    QuantizedLayer,
    Sample,
    Score,
    SeedScore,
    SetPerplexity,
    SpeedComparison,
    SpeedRow,
    StepRecord,
    StepReport,
    TaskRecord,
    TeacherStorage,
    TextSetComparison,
    TextSetScore,
    TrainingPoint,
    TrainingRecord,
    decode,
    encode,
)

TRAINING = TrainingRecord(
    4096,
    2,
    1.5,
    2730.5,
    2**30,
    (TrainingPoint(2048, 2.5), TrainingPoint(4096, math.inf)),
    parts={"logits": 2.0},
    window=512,
    teacher=TeacherStorage(100, 8, 64),
    adapters=AdapterRecord("lora", 16, 2048, 100_000, 4, ("model.layers.0.mlp.up_proj.right",)),
)
DENSE = Perplexity("tokens-512", "text", 30.0, 511, 1, 0.5)
TEXTS = TextSetScore("kinds", (SetPerplexity("news", "0123456789ab", DENSE),))
LAMBADA = LambadaScore("lambada-openai", "file", 40.0, 25.0, 4, 0, 0.5)
CHOICE = LmEvalScore("piqa", "acc", "none", 0.5, None, 10, 0, "1.0", "0.4.9")
FORMATS = NumberFormats(NumberFormat(1.58, "twn", 64), NumberFormat(32), NumberFormat(8, "minmax", "row"))
RANGE = InputRange("h.0.up", "up", 0, "uint8", (0, 255), 0.5, -1.0, -2.0, 3.0)
RECORDS: list[StepRecord] = [
    QuantizationRecord(
        {"weights": {"bits": 1.58}},
        {"name": "nearest"},
        (
            QuantizedLayer("h.0.up", "up", 0, 1.6, 64, 4, 0.5),
            QuantizedLayer("wte", "embedding", None, 8, 64, 16, 0.1, 0.2),
        ),
        24,
        {"weights": 4, "tables": 16, "other": 4},
        {"weights": 64, "tables": 64, "other": 4},
        FORMATS,
        (RANGE, InputRange("pooler", "pooler", None, "int8", (-128, 127))),
    ),
    FactorizeRecord(
        {"name": "van_loan", "window": None},
        (LayerChange("h.0.up", "up", 0, 8, 4, 0.5, "kronecker"), LayerChange("wte", "embedding", None, 8, 4, 0.5, "")),
        ("a note",),
        1000,
    ),
    TRAINING,
    EvaluationRecord(
        "pruned",
        "bf16",
        (PerplexityComparison.of(DENSE, Perplexity("wikitext-word", "text", math.inf, 511, 1, 0.5, 300, 1.7)),),
        LambadaComparison.of(LAMBADA, LAMBADA),
        (LmEvalComparison(CHOICE, CHOICE),),
        Fidelity(0.9, 0.1, 8),
        SpeedComparison((SpeedRow("prefill", 1.0, 2.0, 2.0, 1.5, 2.5),), 256, 32, 5, 2, "cpu", "float32", "float32"),
        (Sample("a", "b", "c"),),
        TextSetComparison.of(TEXTS, TEXTS),
    ),
    FinetuneRecord(
        (
            TaskRecord(
                "rte",
                "dev",
                ("accuracy",),
                {"train": 10, "dev": 5},
                (
                    ModelScore(
                        "student",
                        Score.over([50.0, 60.0]),
                        Footprint(1, 1, 1, 1, 4, None, 2, 2),
                        (
                            SeedScore(7, 60.0, {"accuracy": 60.0}, training=TRAINING, teacher="read from disk"),
                            SeedScore(8, None, error="it diverged"),
                        ),
                        {"accuracy": Score(55.0)},
                        {"hans": {"accuracy": Score(50.0)}},
                        {"logits": "logits"},
                        3.0,
                        1e-4,
                        7,
                        formats=FORMATS,
                        inputs=(RANGE,),
                    ),
                ),
            ),
        )
    ),
]


def written(record: StepRecord) -> dict[str, Any]:
    """A report as a reader finds it in its file."""
    value: dict[str, Any] = json.loads(json.dumps(encode(StepReport("step", 2.5, 2**30, record))))
    return value


def read(value: Any) -> StepReport:
    return decode(StepReport, value, place="report.json", remedy="restore it")


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.kind)
def test_a_record_comes_back_as_it_was(record: StepRecord) -> None:
    assert read(written(record)) == StepReport("step", 2.5, 2**30, record)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.kind)
def test_a_field_that_is_missing_or_unknown_is_named(record: StepRecord) -> None:
    for name in written(record)["record"]:
        value = written(record)
        value["record"][f"{name}s"] = value["record"].pop(name)
        with pytest.raises(KronpressError, match=r"report\.json is damaged at 'record.*'; restore it$"):
            read(value)


def test_a_record_without_the_newer_fields_is_read() -> None:
    quantization, *_, finetune = RECORDS
    old, older = written(quantization), written(finetune)
    for name in ("parts_before", "formats", "inputs"):
        del old["record"][name]
    for name in ("formats", "inputs"):
        del older["record"]["tasks"][0]["models"][0][name]
    record = read(old).record
    assert isinstance(record, QuantizationRecord)
    assert (record.parts_before, record.formats, record.inputs) == ({}, None, ())
    tasks = read(older).record
    assert isinstance(tasks, FinetuneRecord)
    assert tasks.tasks[0].models[0].formats is None


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"seconds": "2.5"}, "seconds"),
        ({"seconds": True}, "seconds"),
        ({"peak_rss_bytes": 1.5}, "peak_rss_bytes"),
        ({"record": {"kind": "another"}}, "record"),
        ({"record": []}, "record"),
        ({"format_version": None}, "format_version"),
        ({"format_version": True}, "format_version"),
        ({"more": 1}, "more"),
    ],
)
def test_a_value_of_another_type_is_named(change: dict[str, Any], field: str) -> None:
    with pytest.raises(KronpressError, match=rf"report\.json is damaged at '{field}'; restore it$"):
        read(written(TRAINING) | change)


@pytest.mark.parametrize("value", [[], None, "text", {}])
def test_what_is_no_record_is_refused(value: Any) -> None:
    with pytest.raises(KronpressError, match=r"report\.json is damaged at 'format_version'"):
        read(value)


def test_a_newer_version_is_told_from_damage() -> None:
    newer = {"format_version": FORMAT_VERSION + 1, "nothing": "known"}
    with pytest.raises(KronpressError, match=r"report\.json has the format_version 2.*install a newer kronpress"):
        read(newer)


def test_a_score_is_the_mean_over_its_seeds() -> None:
    assert Score.over([50.0]) == Score(50.0, None, 1)
    assert Score.over([49.0, 50.0, 51.0]) == Score(50.0, 1.0, 3)


def test_a_model_is_scored_by_the_runs_that_did_not_diverge() -> None:
    runs = [
        SeedScore(seed, score, {} if score is None else {"f1": score}) for seed, score in enumerate([50.0, None, 60.0])
    ]
    model = ModelScore.of("student", Footprint(1, 1, 1, 1, 4, None, 2, 2), runs)
    assert (model.score.value, model.score.seeds, model.best_seed, model.diverged) == (55.0, 2, 2, 1)
    assert model.seeds == (runs[0], runs[2])
    assert model.metrics == {"f1": model.score}
