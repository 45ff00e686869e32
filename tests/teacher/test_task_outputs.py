from __future__ import annotations

import pickle
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kronpress.activations.trace import Trace, tracing
from kronpress.errors import KronpressError
from kronpress.tasks import TASKS, Feature, predict, with_head
from kronpress.teacher import store, task_outputs
from kronpress.teacher.task_outputs import activation_bytes, build_task
from tests.tiny import tiny_bert, tiny_tokenizer


def said(*arguments: Any, **options: Any) -> list[dict[str, torch.Tensor]]:
    teacher = build_task(*arguments, **options)
    return [teacher.said(row) for row in range(len(teacher.store))]


def mrpc_teacher() -> Any:
    return with_head(tiny_bert(), TASKS["mrpc"], tiny_tokenizer())


def features_of(*lengths: int) -> list[Feature]:
    return [Feature(tuple(range(3, 3 + length)), None, (0.0,), index) for index, length in enumerate(lengths)]


def test_outputs_of_another_teacher_or_other_features_are_taken_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = mrpc_teacher()
    features = [Feature((3, 4, 5), None, (0.0,), 0), Feature((6, 7), None, (1.0,), 1)]
    first = said(tmp_path, teacher, features)
    for mine, theirs in zip(first, said(tmp_path, teacher, features), strict=True):
        assert torch.equal(mine["teacher_outputs"], theirs["teacher_outputs"])
    with torch.no_grad():
        teacher.classifier.bias += 1
    renewed = said(tmp_path, teacher, features)
    assert "are of another teacher; they are built again" in capsys.readouterr().out
    torch.testing.assert_close(renewed[0]["teacher_outputs"], first[0]["teacher_outputs"] + 1, atol=0.02, rtol=0)
    assert len(said(tmp_path, teacher, features[:1])) == 1
    assert "are of another set of examples" in capsys.readouterr().out
    spans = with_head(tiny_bert(), TASKS["squad"], tiny_tokenizer())
    taken = [said(tmp_path, spans, features) for _ in range(2)]
    for mine, theirs in zip(*taken, strict=True):
        assert torch.equal(mine["teacher_outputs"], theirs["teacher_outputs"])
    assert [row["teacher_outputs"].shape for row in taken[1]] == [(2, 3), (2, 2)]


@pytest.mark.parametrize(
    "readings", [{"embedding", "blocks"}, {"blocks"}, {"feed_forwards"}, {"embedding", "blocks", "feed_forwards"}]
)
def test_what_the_teacher_computes_inside_is_stored(readings: set[Any], tmp_path: Path) -> None:
    teacher, features = mrpc_teacher().eval(), features_of(3, 7, 2)
    for _ in range(2):  # taken, and read again
        stored = build_task(tmp_path, teacher, features, readings=readings)
        for row, feature in enumerate(features):
            with torch.no_grad(), tracing(teacher, readings) as expected:
                teacher(input_ids=torch.tensor([feature.ids]))
            activations = stored.said(row)["teacher_activations"]
            assert activations.dtype == torch.bfloat16
            trace = Trace.of(activations[None].float(), readings)
            assert (trace.embedding is None) == ("embedding" not in readings)
            assert len(trace.blocks) == len(expected.blocks) and len(trace.feed_forwards) == len(expected.feed_forwards)
            ours, theirs = trace.taken(), expected.taken()
            torch.testing.assert_close(ours, theirs, atol=0.05, rtol=0.02)
    needed = activation_bytes(teacher, features, readings) + len(features) * 2 * 4
    assert needed <= stored.store.bytes <= needed + 256


@pytest.mark.parametrize("damaged", ["shard-00000.safetensors", "index.json"])
def test_outputs_that_are_not_whole_are_taken_anew(damaged: str, tmp_path: Path) -> None:
    teacher, features = mrpc_teacher(), features_of(3, 2)
    first = said(tmp_path, teacher, features, readings={"blocks"})[1]
    path = tmp_path / damaged
    path.write_bytes(path.read_bytes()[:-9])
    again = said(tmp_path, teacher, features, readings={"blocks"})[1]
    assert torch.equal(first["teacher_activations"], again["teacher_activations"])
    assert torch.equal(first["teacher_outputs"], again["teacher_outputs"])


def test_outputs_of_one_kind_replace_those_of_another(tmp_path: Path) -> None:
    teacher = mrpc_teacher()
    ids, types = (3, 4, 5, 6), (0, 0, 1, 1)
    for given, readings in ((None, {"blocks"}), (types, {"blocks"}), (types, {"feed_forwards"}), (types, set())):
        (row,) = said(tmp_path, teacher, [Feature(ids, given, (0.0,), 0)], readings=readings)
        fresh = predict(teacher, [Feature(ids, given, (0.0,), 0)])[0]
        np.testing.assert_allclose(row["teacher_outputs"].numpy(), fresh, atol=1e-6)
        assert ("teacher_activations" in row) == bool(readings)
        assert len(list(tmp_path.iterdir())) == 2


def test_several_shards_hold_what_one_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The teacher reads the same texts together, so that padding is the same."""
    monkeypatch.setattr(task_outputs, "TOKENS_PER_BATCH", 24)
    monkeypatch.setattr(import_module("kronpress.tasks.predict"), "TOKENS_PER_BATCH", 24)
    teacher, features = mrpc_teacher(), features_of(3, 9, 2, 11, 4, 4, 8, 1)
    whole = said(tmp_path / "one", teacher, features, readings={"blocks", "embedding"})
    monkeypatch.setattr(store, "SHARD_BYTES", 1)
    parts = build_task(tmp_path / "many", teacher, features, readings={"blocks", "embedding"})
    assert len(parts.store.contents.shards) == 3
    for row, expected in enumerate(whole):
        for name, value in parts.said(row).items():
            assert torch.equal(value, expected[name])


def test_an_interrupted_building_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "SHARD_BYTES", 1)
    monkeypatch.setattr(task_outputs, "TOKENS_PER_BATCH", 12)
    teacher, features = mrpc_teacher(), features_of(11, 12, 10)
    whole, asked = said(tmp_path / "whole", teacher, features), list[int]()

    def predict_or_die(model: Any, features: Any, **options: Any) -> Any:
        asked.append(len(features))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return predict(model, features, **options)

    monkeypatch.setattr(task_outputs, "predict", predict_or_die)
    with pytest.raises(KeyboardInterrupt):
        said(tmp_path / "killed", teacher, features)
    again = said(tmp_path / "killed", teacher, features)
    assert asked == [1, 1, 1, 1]
    for mine, theirs in zip(again, whole, strict=True):
        assert torch.equal(mine["teacher_outputs"], theirs["teacher_outputs"])


def test_what_was_said_of_several_texts_is_padded(tmp_path: Path) -> None:
    spans = with_head(tiny_bert(), TASKS["squad"], tiny_tokenizer())
    stored = build_task(tmp_path, spans, features_of(3, 2), readings={"blocks"})
    batch = stored.together([stored.said(0), stored.said(1)])
    assert batch["teacher_outputs"].shape == (2, 2, 3)
    assert batch["teacher_outputs"][1, :, 2].tolist() == [0.0, 0.0]
    assert not batch["teacher_activations"][1, 2].any() and batch["teacher_activations"][0, 2].any()
    outputs, trace = stored.look(batch)
    assert outputs is batch["teacher_outputs"] and len(trace.blocks) == 3
    assert stored.models == ()


def test_a_full_disk_is_said_before_the_teacher_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = mrpc_teacher()
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(KronpressError, match="are free"):
        build_task(tmp_path / "x", teacher, [Feature((3, 4), None, (0.0,), 0)], readings={"blocks"})
    assert not any(tmp_path.iterdir())


def test_other_processes_are_given_the_same(tmp_path: Path) -> None:
    stored = build_task(tmp_path, mrpc_teacher(), features_of(3, 2), readings={"blocks"})
    stored.said(1)
    other = pickle.loads(pickle.dumps(stored))
    assert other.offer == stored.offer
    for name, value in stored.said(1).items():
        assert torch.equal(other.said(1)[name], value)
