from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoModelForSequenceClassification

from kronpress.checkpoint import load, structured_layers
from kronpress.checkpoint.digests import weights_digest
from kronpress.errors import KronpressError
from kronpress.finetune import Finetune
from kronpress.records import encode
from kronpress.run.recipe import Recipe
from tests.finetune.words import step, work, write_cola
from tests.tiny import save_tiny, tiny_bert, tiny_llama


@pytest.mark.parametrize("build", [tiny_bert, tiny_llama])
def test_teacher_student_and_baselines_stand_side_by_side(build: Any, data: Path, tmp_path: Path) -> None:
    bench = work(tmp_path, build=build)
    before = {name: value.clone() for name, value in bench.student.state_dict().items()}
    baselines = {"plain": {}, "other": {"model": str(save_tiny(tmp_path / "other", build(seed=3)))}}
    (found,) = step(data, baselines=baselines, epochs=1).run(bench).tasks
    assert found.task == "sst-2" and found.examples == {"train": 96, "dev": 40} and found.split == "dev"
    assert [row.model for row in found.models] == ["teacher", "student", "plain", "other"]
    for row in found.models:
        assert [each.seed for each in row.seeds] == [0, 1]
        assert row.score.value == pytest.approx(np.mean([each.score for each in row.seeds]))
        assert row.score.deviation == pytest.approx(np.std([each.score for each in row.seeds], ddof=1))
        assert row.metrics == {"accuracy": row.score}
        folder = tmp_path / "step" / "sst-2" / row.model
        opened = AutoModelForSequenceClassification.from_pretrained(folder)
        assert bool(structured_layers(opened)) == (row.model in ("student", "plain"))
        assert sum(each.numel() for each in opened.parameters()) == row.footprint.parameters
    assert not list((tmp_path / "step").rglob("best-*.safetensors")) and not list((tmp_path / "step").rglob("trainer"))
    for name, value in bench.student.state_dict().items():
        assert value.equal(before[name])
    json.dumps(encode(found), allow_nan=False)


def test_tasks_may_differ_in_what_they_do(data: Path) -> None:
    fine = Finetune(tasks={"sst-2": {"epochs": 1, "learning_rate": 0.1}, "rte": None}, data=str(data))
    assert (fine.plan("sst-2").epochs, fine.plan("sst-2").training.learning_rate) == (1, 0.1)
    assert (fine.plan("rte").epochs, fine.plan("rte").training.learning_rate) == (3, 5e-5)
    recipe = Recipe.model_validate({"steps": [{"step": "finetune", "tasks": ["sst-2"], "baselines": {"a": {}}}]})
    assert "sst-2" in recipe.to_yaml() and "name: cross_entropy" in recipe.to_yaml()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tasks": "sst2x"}, "unknown task 'sst2x'"),
        ({"tasks": 3}, "tasks is 3"),
        ({"tasks": {"sst-2": {"epoch": 1}}}, "epoch"),
        ({"baselines": {"student": {}}}, "cannot be called 'student'"),
        ({"baselines": {"a/b": {}}}, "cannot be called 'a/b'"),
        ({"baselines": {"": {}}}, "cannot be called '': the name is empty"),
        ({"baselines": {" ": {}}}, "the name is empty"),
        ({"baselines": {".": {}}}, "begins or ends with a dot"),
        ({"baselines": {"..": {}}}, "begins or ends with a dot"),
        ({"baselines": {".work": {}}}, "begins or ends with a dot"),
        ({"baselines": {"plain ": {}}}, "begins or ends with a dot or a space"),
        ({"baselines": {"plain.": {}}}, "begins or ends with a dot or a space"),
        ({"baselines": {"student.json": {}}}, "the ending .json is that of its report"),
        ({"baselines": {"a" * 300: {}}}, "takes more than 100 bytes"),
        ({"baselines": {"é" * 60: {}}}, "takes more than 100 bytes"),
        ({"baselines": {"a\0b": {}}}, r"folders can not have '\\x00' in their names"),
        ({"baselines": {"a\nb": {}}}, r"folders can not have '\\n' in their names"),
        ({"baselines": {"a\ud800": {}}}, "folders can not have"),
        ({"baselines": {"a\\b": {}}}, "folders can not have"),
        ({"baselines": {"a:b": {}}}, "folders can not have ':'"),
        ({"baselines": {"NUL": {}}}, "Windows keeps that name"),
        ({"baselines": {"com1.old": {}}}, "Windows keeps that name"),
        ({"baselines": {"Student": {}}}, "some disks do not tell capitals from small letters"),
        ({"baselines": {"plain": {}, "Plain": {}}}, "cannot be called 'Plain': another is called so"),
        ({"baselines": {"caf\u00e9": {}, "cafe\u0301": {}}}, "another is called so"),
        ({"tasks": [""]}, "unknown task ''"),
        ({"tasks": ["a" * 10_000]}, r"unknown task 'a{36,38}\.\.\."),
        ({"also": {"../hans": "x"}}, "unknown task '../hans'"),
        ({"baselines": {"a": {"learning_rate": float("inf")}}}, "finite"),
        ({"teacher": {"learning_rate": float("inf")}}, "finite"),
        ({"epochs": True}, "a number is needed"),
        ({"losses": {"logitz": 1}}, "logitz"),
        ({"seeds": 0}, "seeds"),
        ({"tasks": {"rte": {"after": "mrpc"}}}, "'rte' comes after 'mrpc', which this step has not"),
        ({"tasks": {"rte": {"after": "rte"}}}, "none is first"),
        ({"tasks": {"rte": {"after": "cola"}, "cola": {"after": "rte"}}}, "none is first"),
        ({"tasks": {"rte": {"after": "rtx"}}}, "unknown task 'rtx'"),
        ({"tasks": {"rte": {"unlabeled": "rtx"}}}, "unknown task 'rtx'"),
        ({"teacher": None, "losses": {"cross_entropy": 1}, "tasks": {"rte": {"losses": {"logits": 1}}}}, "on rte"),
        ({"losses": {"cross_entropy": 1}, "tasks": {"rte": {"unlabeled": ["mrpc"]}}}, "can read `unlabeled`"),
    ],
)
def test_wrong_fields_are_named(fields: dict[str, Any], message: str, data: Path) -> None:
    with pytest.raises((KronpressError, ValueError), match=message):
        step(data, **fields)


def test_what_would_fail_later_is_found_before_anything_is_trained(data: Path, tmp_path: Path) -> None:
    bench = work(tmp_path)
    with pytest.raises(KronpressError, match="nowhere"):
        step(data, teacher=str(tmp_path / "nowhere")).check(bench)
    short = save_tiny(tmp_path / "short", tiny_bert(num_hidden_layers=2))
    losses = {"hidden": {"layers": "same"}}
    with pytest.raises(KronpressError, match="layers of the loss 'hidden' is 'same'"):
        step(data, baselines={"short": {"model": str(short), "losses": losses}}).check(bench)
    step(data, baselines={"short": {"model": str(short), "losses": {"logits": 1}}}).check(bench)
    other = tmp_path / "other"
    tiny_bert().save_pretrained(other)
    (tmp_path / "words").mkdir()
    with pytest.raises(KronpressError, match=r"other' has no readable tokenizer beside it"):
        step(data, baselines={"other": {"model": str(other)}}).check(bench)


def test_a_batch_of_a_tasks_own_must_suit_micro_batch(data: Path, tmp_path: Path) -> None:
    write_cola(data, count=32)
    with pytest.raises(KronpressError, match="micro_batch 4 does not divide the 6"):
        step(data, tasks={"sst-2": {}, "cola": {"batch": 6}}, micro_batch=4).check(work(tmp_path))


def test_what_tasks_do_to_a_tokenizer_stays_with_them(data: Path, tmp_path: Path) -> None:
    bench = work(tmp_path, build=tiny_llama)
    bench.tokenizer.pad_token = None
    before = bench.tokenizer.backend_tokenizer.to_str()
    fine = step(data, epochs=1, seeds=1)
    fine.check(bench)
    fine.run(bench)
    assert bench.tokenizer.pad_token is None and bench.tokenizer.backend_tokenizer.to_str() == before


def test_a_task_begins_with_the_models_of_the_task_before(data: Path, tmp_path: Path) -> None:
    write_cola(data, count=32)
    tasks = {"cola": {"after": "sst-2", "losses": {"logits": 1, "cross_entropy": 2}}, "sst-2": {}}
    fine = step(data, tasks=tasks, seeds=1, epochs=1, baselines={"plain": {}})
    bench = work(tmp_path)
    fine.check(bench)
    after, first = fine.run(bench).tasks
    assert (after.task, after.after, first.task, first.after) == ("cola", "sst-2", "sst-2", None)
    for row, earlier in zip(after.models, first.models, strict=True):
        model = load(tmp_path / "step" / "sst-2" / row.model)
        assert row.settings["start"] == weights_digest(model) != earlier.settings["start"]
    assert [row.losses for row in after.models[1:]] == [
        {"logits": "logits", "cross_entropy": "cross_entropy"},
        {"cross_entropy": "cross_entropy"},
    ]
    assert set(first.models[1].losses) == {"logits", "hidden"}
    assert fine.run(bench).tasks == (after, first)
