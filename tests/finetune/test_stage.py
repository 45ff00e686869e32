"""Stages of fewer bits: each from the best epoch of another, resumed to the same bits."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForSequenceClassification

from kronpress.checkpoint import load
from kronpress.checkpoint.digests import weights_digest
from kronpress.errors import KronpressError
from kronpress.finetune import comparison
from kronpress.footprint import footprint
from kronpress.layers import quantized_tensors
from kronpress.records import FinetuneRecord, NumberFormat
from tests.finetune.words import step, work
from tests.tiny import tiny_bert, tiny_llama

STAGES: dict[str, Any] = {
    "w8": {"weights": {"bits": 8, "quantizer": "lsq"}, "start": "teacher"},
    "w2": {"weights": {"bits": 2, "quantizer": "twn"}, "losses": {"logits": 1}},
    "w2a8": {"weights": {"bits": 2, "quantizer": "twn"}, "inputs": 8, "epochs": 1},
    "w1": {"weights": {"bits": 1, "quantizer": "laq"}, "start": "w2", "teacher": "w2", "learning_rate": 0.001},
}


def levels(folder: Path) -> set[str]:
    return {tensor.grid.levels for tensor in quantized_tensors(load(folder))}


@pytest.mark.parametrize("build", [tiny_bert, tiny_llama])
def test_stages_stand_in_the_table_and_open_as_packed_models(build: Any, data: Path, tmp_path: Path) -> None:
    bench = work(tmp_path, build=build)
    stages = copy.deepcopy(STAGES)
    if build is tiny_llama:
        stages["w2"]["start"] = "teacher"
    record: FinetuneRecord = step(data, stages=stages, epochs=1, seeds=1).run(bench)
    (task,) = record.tasks
    assert [row.model for row in task.models] == ["teacher", "w8", "w2", "w2a8", "w1"]
    folder = tmp_path / "step" / "sst-2"
    found = {name: levels(folder / name) for name in stages}
    assert found == {"w8": {"int8"}, "w2": {"ternary"}, "w2a8": {"ternary"}, "w1": {"binary"}}
    sizes = [row.footprint.bytes_on_disk for row in task.models]
    assert sizes[0] > sizes[1] > sizes[2] > sizes[4]
    for row in task.models[1:]:
        opened = AutoModelForSequenceClassification.from_pretrained(folder / row.model)
        assert footprint(opened).parameters == row.footprint.parameters
    assert not (folder / ".work").exists()
    widths = [row.formats and (row.formats.weights.bits, row.formats.inputs) for row in task.models]
    assert widths == [None, (8, None), (1.58, None), (1.58, NumberFormat(8, "minmax", "tensor")), (1, None)]
    assert [bool(row.inputs) for row in task.models] == [False, False, False, True, False]


def test_a_stage_tells_the_ranges_that_it_learned(data: Path, tmp_path: Path) -> None:
    stages = {"a4": {"weights": 8, "inputs": {"bits": 4, "quantizer": "lsq"}, "start": "teacher"}}
    (task,) = step(data, stages=stages, epochs=1, seeds=1).run(work(tmp_path)).tasks
    opened, ranges = load(tmp_path / "step" / "sst-2" / "a4"), task.models[1].inputs
    assert {layer.role for layer in ranges} >= {"query", "up", "down"}
    for layer in ranges:
        stored = opened.get_submodule(layer.path).inputs
        assert layer.scale == float(stored.scale)
        assert layer.low is not None and layer.high is not None and layer.low < layer.high


def test_a_stage_may_begin_from_the_student(data: Path, tmp_path: Path) -> None:
    bench = work(tmp_path)
    (task,) = step(data, stages={"k4": {"weights": 4}}, epochs=1, seeds=1).run(bench).tasks
    assert [row.model for row in task.models] == ["teacher", "student", "k4"]
    assert task.models[2].footprint.parameters == task.models[1].footprint.parameters
    assert task.models[2].losses == task.models[1].losses


def test_a_schedule_that_is_stopped_goes_on_to_the_same_bits(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = {"w2": {**STAGES["w2"], "start": "teacher"}, "w1": STAGES["w1"]}
    whole = step(data, stages=stages, epochs=1, seeds=1)
    whole.run(work(tmp_path / "whole"))

    class StopError(Exception):
        pass

    train, finished = comparison.Comparison.row, []

    def stopping(self: Any, candidate: Any, **options: Any) -> Any:
        done = (self.folder / f"{candidate.name}.json").exists()
        row = train(self, candidate, **options)
        finished.extend([] if done else [candidate.name])
        if not done and candidate.name != "w1":
            raise StopError
        return row

    monkeypatch.setattr(comparison.Comparison, "row", stopping)
    bench = work(tmp_path / "stopped")
    for _ in range(2):
        with pytest.raises(StopError):
            whole.run(bench)
    whole.run(bench)
    assert finished == ["teacher", "w2", "w1"]
    digests = [weights_digest(load(tmp_path / name / "step" / "sst-2" / "w1")) for name in ("whole", "stopped")]
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ({"a": {"weights": 4, "start": "b"}, "b": {"weights": 2}}, r"stages.a: start is 'b'; name one of teacher"),
        ({"a": {"weights": 4, "teacher": "x"}}, r"stages.a: teacher is 'x'"),
        ({"teacher": {"weights": 4}}, "a stage cannot be called 'teacher'"),
        ({"a": {"weights": 4, "epoch": 1}}, r"stages.a.epoch"),
        ({"a": {"start": "teacher"}}, r"stages.a.weights"),
    ],
)
def test_what_is_not_understood_is_refused(stages: dict[str, Any], message: str, data: Path) -> None:
    with pytest.raises(ValueError, match=message):
        step(data, stages=stages)


def test_a_group_that_does_not_divide_is_refused_before_the_training(data: Path, tmp_path: Path) -> None:
    stages = {"w4": {"weights": {"bits": 4, "group": 64}, "start": "teacher"}}
    with pytest.raises(KronpressError, match=r"groups of 64 do not divide rows of 16"):
        step(data, stages=stages).check(work(tmp_path))
