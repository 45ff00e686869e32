from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, TrainerControl, TrainerState, TrainingArguments

from kronpress.activations.trace import Trace, tracing
from kronpress.checkpoint import load, structured_layers
from kronpress.checkpoint.digests import weights_digest
from kronpress.errors import KronpressError
from kronpress.finetune import Finetune
from kronpress.finetune import comparison as contest
from kronpress.finetune.best_epoch import Selection
from kronpress.run.recipe import Recipe
from kronpress.step import Workbench
from kronpress.tasks import TASKS, Feature, predict, with_head
from kronpress.teacher import example_store as lessons_module
from kronpress.teacher.example_store import bytes_of, lessons
from kronpress.train import read_log
from kronpress.train import step as training
from tests.tiny import bench, factorized, save_tiny, tiny_bert, tiny_llama, tiny_tokenizer, weights_files

WORDS = ("sun", "moon", "star", "sky", "sea", "tree")


def rows(count: int, *, seed: int) -> list[str]:
    """Sentences of one to six words; those with `moon` are of class 1."""
    generator = np.random.default_rng(seed)
    lines = []
    for _ in range(count):
        words = generator.choice(WORDS, size=generator.integers(1, 7)).tolist()
        lines.append(f"{' '.join(words)}\t{int('moon' in words)}")
    return lines


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "glue" / "SST-2"
    folder.mkdir(parents=True)
    for name, count in (("train", 96), ("dev", 40)):
        (folder / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *rows(count, seed=count)]) + "\n")
    return tmp_path / "glue"


def work(tmp_path: Path, *, build: Any = tiny_bert) -> Workbench:
    model = build()
    return Workbench(
        factorized(model, tmp_path / "factorized", sites="all"),
        model,
        tiny_tokenizer(),
        bench(model, tmp_path).train,
        bench(model, tmp_path).held_out,
        tmp_path / "step",
    )


def step(data: Path, **fields: Any) -> Finetune:
    given = {"tasks": "sst-2", "data": str(data), "epochs": 2, "batch": 16, "learning_rate": 0.003, "seeds": 2}
    return Finetune(**(given | {"losses": {"logits": 1, "hidden": {"metric": "relative"}}} | fields))


@pytest.mark.parametrize("build", [tiny_bert, tiny_llama])
def test_teacher_student_and_baselines_stand_side_by_side(build: Any, data: Path, tmp_path: Path) -> None:
    bench = work(tmp_path, build=build)
    before = {name: value.clone() for name, value in bench.student.state_dict().items()}
    baselines = {"plain": {}, "other": {"model": str(save_tiny(tmp_path / "other", build(seed=3)))}}
    (found,) = step(data, baselines=baselines, epochs=1).run(bench)["tasks"]
    assert found["task"] == "sst-2" and found["examples"] == {"train": 96, "dev": 40} and found["split"] == "dev"
    assert [row["model"] for row in found["rows"]] == ["teacher", "student", "plain", "other"]
    for row in found["rows"]:
        assert [each["seed"] for each in row["seeds"]] == [0, 1]
        assert row["score"] == pytest.approx(np.mean([each["score"] for each in row["seeds"]]))
        assert row["deviation"] == pytest.approx(np.std([each["score"] for each in row["seeds"]], ddof=1))
        assert row["scores"] == {"accuracy": pytest.approx(row["score"])}
        folder = tmp_path / "step" / "sst-2" / row["model"]
        opened = AutoModelForSequenceClassification.from_pretrained(folder)
        assert bool(structured_layers(opened)) == (row["model"] in ("student", "plain"))
        assert sum(each.numel() for each in opened.parameters()) == row["footprint"]["parameters"]
    assert not list((tmp_path / "step").rglob("best-*.safetensors")) and not list((tmp_path / "step").rglob("trainer"))
    for name, value in bench.student.state_dict().items():
        assert value.equal(before[name])
    json.dumps(found, allow_nan=False)


def test_a_model_learns_and_its_best_epoch_is_kept(data: Path, tmp_path: Path) -> None:
    bench = work(tmp_path)
    (found,) = step(data, epochs=1, seeds=1, teacher={"epochs": 6, "learning_rate": 0.01}).run(bench)["tasks"]
    teacher = found["rows"][0]
    assert teacher["score"] >= 80.0
    task, place = TASKS["sst-2"], tmp_path / "step" / "sst-2" / "teacher"
    dev = task.read(str(data / "SST-2"), "dev")
    features = task.features(dev, tiny_tokenizer(), max_length=64)
    answers = task.answers(dev, features, contest.predict(load(place), features))
    assert task.scores(dev, answers)["accuracy"] == pytest.approx(teacher["score"])


def test_the_best_epoch_counts_not_the_last(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = iter([60.0, 90.0, 70.0])
    heads: list[torch.Tensor] = []

    def measure(self: Any, model: Any, features: Any) -> tuple[float, dict[str, float]]:
        heads.append(model.classifier.weight.detach().clone())
        score = next(told)
        return score, {"accuracy": score}

    monkeypatch.setattr(contest.Contest, "_measure", measure)
    bench = work(tmp_path)
    fine = step(data, epochs=3, seeds=1)
    data_of = fine._data("sst-2")
    whole = contest.Contest(bench, tmp_path / "step" / "sst-2", data_of, fine._train, batch=16, seeds=[0])
    student = contest.Contender("teacher", bench.teacher, bench.tokenizer, fine.losses, epochs=3, learning_rate=0.001)
    row = whole.row(student, teacher=_taught(bench))
    assert (row["score"], row["seeds"][0]["epoch"]) == (90.0, 2.0)
    assert whole.opened("teacher").classifier.weight.equal(heads[1])  # type: ignore[union-attr]


def _taught(bench: Workbench) -> Any:
    return with_head(bench.teacher, TASKS["sst-2"], bench.tokenizer, seed=9)


def test_an_interrupted_step_goes_on_to_the_same_end(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields: dict[str, Any] = {"save_every": 4, "log_every": 2, "epochs": 2}
    whole = step(data, **fields).run(work(tmp_path / "whole"))
    count = iter(range(1000))
    original = contest.Contest._measure

    def breaking(self: Any, model: Any, features: Any) -> Any:
        if next(count) in (1, 5):  # in a first training, and between two models
            raise KeyboardInterrupt
        return original(self, model, features)

    monkeypatch.setattr(contest.Contest, "_measure", breaking)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            step(data, **fields).run(work(tmp_path / "broken"))
    again = step(data, **fields).run(work(tmp_path / "broken"))
    for one, other in zip(whole["tasks"][0]["rows"], again["tasks"][0]["rows"], strict=True):
        assert [_timeless(each) for each in one["seeds"]] == [_timeless(each) for each in other["seeds"]]
    places = [weights_files(tmp_path / name / "step" / "sst-2" / "student")[0] for name in ("whole", "broken")]
    assert places[0].read_bytes() == places[1].read_bytes()


def _timeless(result: dict[str, Any]) -> dict[str, Any]:
    training = {key: result["training"][key] for key in ("curve", "parts", "tokens", "steps")}
    return {**result, "training": training}


def test_a_teacher_from_elsewhere_is_scored_and_learned_from(data: Path, tmp_path: Path) -> None:
    first = work(tmp_path / "one")
    scores = step(data, seeds=1).run(first)["tasks"][0]["rows"][0]
    source = str(tmp_path / "one" / "step" / "{task}" / "teacher")
    found = step(data, seeds=1, teacher=source).run(work(tmp_path / "two"))["tasks"][0]["rows"]
    assert [row["model"] for row in found] == ["teacher", "student"]
    assert found[0]["score"] == pytest.approx(scores["score"]) and found[0]["seeds"][0]["seed"] is None
    assert not (tmp_path / "two" / "step" / "sst-2" / "teacher").exists()


def test_a_teacher_with_another_head_is_refused(data: Path, tmp_path: Path) -> None:
    bench = work(tmp_path)
    plain = str(save_tiny(tmp_path / "plain", tiny_bert()))
    with pytest.raises(KronpressError, match="not one fine-tuned for 'sst-2'"):
        step(data, teacher=plain).run(bench)


def test_a_teacher_from_elsewhere_reads_the_padding_of_the_students_tokenizer(data: Path, tmp_path: Path) -> None:
    """A decoder's head reads the last token that is not padding, which a teacher's own files may name wrongly."""
    first = []
    for padding in (None, 0, 256):
        bench = work(tmp_path / str(padding), build=tiny_llama)
        teacher = with_head(bench.teacher, TASKS["sst-2"], bench.tokenizer)
        teacher.config.pad_token_id = padding
        teacher.save_pretrained(tmp_path / f"teacher-{padding}")
        bench.tokenizer.save_pretrained(tmp_path / f"teacher-{padding}")
        fine = step(data, teacher=str(tmp_path / f"teacher-{padding}"), seeds=1, epochs=1, log_every=1)
        (row,) = [row for row in fine.run(bench)["tasks"][0]["rows"] if row["model"] == "student"]
        assert row["seeds"][0]["teacher"] == "run at every step"  # for one pass
        first.append(row["seeds"][0]["training"]["curve"][0]["loss"])
    np.testing.assert_allclose(first, first[0], rtol=1e-5)


def test_logits_alone_need_no_teacher_in_memory(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teachers: list[Any] = []
    original = contest.TaskDistillation

    def noted(student: Any, teacher: Any, losses: Any) -> Any:
        teachers.append(teacher)
        return original(student, teacher, losses)

    monkeypatch.setattr(contest, "TaskDistillation", noted)
    runs: list[int] = []
    predict = contest.predict
    monkeypatch.setattr("kronpress.teacher.example_store.predict", lambda *a, **k: runs.append(1) or predict(*a, **k))
    step(data, epochs=1, losses={"logits": 0.5, "cross_entropy": 0.5}, baselines={"more": {"losses": "logits"}}).run(
        work(tmp_path)
    )
    assert teachers == [None] * 6
    assert len(runs) == 1  # for both seeds and both models


def test_lessons_of_another_teacher_or_other_features_are_taken_anew(tmp_path: Path) -> None:
    teacher = with_head(tiny_bert(), TASKS["mrpc"], tiny_tokenizer())
    features = [Feature((3, 4, 5), None, (0.0,), 0), Feature((6, 7), None, (1.0,), 1)]
    first = lessons(teacher, features, folder=tmp_path, key="a").outputs
    with torch.no_grad():
        teacher.classifier.bias += 1
    for mine, theirs in zip(first, lessons(teacher, features, folder=tmp_path, key="a").outputs, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    renewed = lessons(teacher, features, folder=tmp_path, key="b").outputs
    np.testing.assert_allclose(renewed[0], first[0] + 1, atol=0.02)
    assert len(lessons(teacher, features[:1], folder=tmp_path, key="b").outputs) == 1
    spans = with_head(tiny_bert(), TASKS["squad"], tiny_tokenizer())
    taken = [lessons(spans, features, folder=tmp_path, key="c").outputs for _ in range(2)]
    for mine, theirs in zip(*taken, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert [each.shape for each in taken[1]] == [(2, 3), (2, 2)]


@pytest.mark.parametrize(
    "readings", [{"embedding", "blocks"}, {"blocks"}, {"feed_forwards"}, {"embedding", "blocks", "feed_forwards"}]
)
def test_lessons_hold_what_the_teacher_computes_inside(readings: set[Any], tmp_path: Path) -> None:
    teacher = with_head(tiny_bert(), TASKS["mrpc"], tiny_tokenizer()).eval()
    features = [Feature(tuple(range(3, 3 + length)), None, (0.0,), index) for index, length in enumerate((3, 7, 2))]
    for _ in range(2):  # taken, and read again
        found = lessons(teacher, features, folder=tmp_path, key="a", readings=readings)
        for row, feature in enumerate(features):
            with torch.no_grad(), tracing(teacher, readings) as expected:
                teacher(input_ids=torch.tensor([feature.ids]))
            states = found[row].states
            assert states is not None and states.dtype == torch.bfloat16
            trace = Trace.of(states[None].float(), readings)
            assert (trace.embedding is None) == ("embedding" not in readings)
            assert len(trace.blocks) == len(expected.blocks) and len(trace.feed_forwards) == len(expected.feed_forwards)
            ours, theirs = trace.taken(), expected.taken()
            torch.testing.assert_close(ours, theirs, atol=0.05, rtol=0.02)
    (states,) = tmp_path.glob("*.states")
    assert bytes_of(teacher, features, readings) == states.stat().st_size


@pytest.mark.parametrize("broken", ["*.states", "*.npz"])
def test_lessons_that_are_not_whole_are_taken_anew(broken: str, tmp_path: Path) -> None:
    teacher = with_head(tiny_bert(), TASKS["mrpc"], tiny_tokenizer())
    features = [Feature((3, 4, 5), None, (0.0,), 0), Feature((6, 7), None, (1.0,), 1)]
    first = lessons(teacher, features, folder=tmp_path, key="a", readings={"blocks"})[1]
    (path,) = tmp_path.glob(broken)
    path.write_bytes(path.read_bytes()[:-9])
    again = lessons(teacher, features, folder=tmp_path, key="a", readings={"blocks"})[1]
    assert first.states is not None and again.states is not None and torch.equal(first.states, again.states)
    np.testing.assert_array_equal(first.outputs, again.outputs)


def test_lessons_of_one_kind_replace_those_of_another(tmp_path: Path) -> None:
    teacher = with_head(tiny_bert(), TASKS["mrpc"], tiny_tokenizer())
    ids, types = (3, 4, 5, 6), (0, 0, 1, 1)
    for given, readings in ((None, {"blocks"}), (types, {"blocks"}), (types, {"feed_forwards"}), (types, set())):
        found = lessons(teacher, [Feature(ids, given, (0.0,), 0)], folder=tmp_path, key="a", readings=readings)[0]
        fresh = predict(teacher, [Feature(ids, given, (0.0,), 0)])[0]
        np.testing.assert_allclose(found.outputs, fresh, atol=1e-6)
        assert len(list(tmp_path.iterdir())) == 1 + bool(readings)


def test_a_full_disk_is_said_before_the_teacher_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = with_head(tiny_bert(), TASKS["mrpc"], tiny_tokenizer())
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(KronpressError, match="are free"):
        lessons(teacher, [Feature((3, 4), None, (0.0,), 0)], folder=tmp_path / "x", key="a", readings={"blocks"})


def test_the_teacher_has_a_dropout_of_its_own(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float | None] = []
    own = training.dropping
    monkeypatch.setattr(training, "dropping", lambda model, rate: rates.append(rate) or own(model, rate))
    options = {"epochs": 0.5, "seeds": 1, "dropout": 0.0, "baselines": {"plain": {}}}
    step(data, **options).run(work(tmp_path / "a"))
    step(data, **options, teacher={"dropout": 0.2}).run(work(tmp_path / "b"))
    assert rates == [None, 0.0, 0.0, 0.2, 0.0, 0.0]


INSIDE = {"logits": 0.5, "embedding": 1, "hidden": {"of": "blocks", "metric": "relative"}}


def test_a_teacher_is_run_once_and_its_students_learn_the_same(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for name, limit in (("kept", 4 * 2**30), ("run at every step", 0)):
        runs: list[int] = []
        monkeypatch.setattr(lessons_module, "predict", lambda *a, r=runs, **k: r.append(1) or predict(*a, **k))
        report = step(data, losses=INSIDE, log_every=4, cache_max_bytes=limit).run(work(tmp_path / name))
        (row,) = (row for row in report["tasks"][0]["rows"] if row["model"] == "student")
        found.append([seed["training"]["curve"][-1]["loss"] for seed in row["seeds"]])
        assert runs == ([1] if limit else [])
    np.testing.assert_allclose(*found, rtol=0.02)


def test_other_data_is_scored_by_the_models_that_answer_it(tmp_path: Path) -> None:
    folder = tmp_path / "RTE"
    folder.mkdir()
    lines = [f"{i}\tthe {WORDS[i % 6]} is up\tit is up\t{('not_entailment', 'entailment')[i % 2]}" for i in range(24)]
    for name in ("train", "dev"):
        (folder / f"{name}.tsv").write_text("\n".join(["index\tsentence1\tsentence2\tlabel", *lines]) + "\n")
    hans = tmp_path / "hans.tsv"
    header = "gold_label\tsentence1\tsentence2\tpairID\theuristic\tsubcase"
    hans.write_text(f"{header}\nentailment\ta b\tb\te0\tlexical_overlap\tx\nnon-entailment\ta\tc\te1\tsubsequence\ty\n")
    fine = step(folder, tasks="rte", also={"hans": str(hans)}, epochs=1, seeds=1)
    bench = work(tmp_path)
    fine.check(bench)
    for row in fine.run(bench)["tasks"][0]["rows"]:
        assert set(row["seeds"][0]["also"]["hans"]) >= {"accuracy", "accuracy/subsequence"}
    with pytest.raises(KronpressError, match="no task of this step answers 'hans'"):
        step(tmp_path, also={"hans": str(hans)}).check(bench)
    with pytest.raises(KronpressError, match="also: 'rte' has training data of its own; put it under tasks"):
        step(tmp_path, also={"rte": str(folder)}).check(bench)


def test_tasks_may_differ_in_what_they_do(data: Path) -> None:
    fine = Finetune(tasks={"sst-2": {"epochs": 1, "learning_rate": 0.1}, "rte": None}, data=str(data))
    assert (fine._with_options("sst-2").epochs, fine._with_options("sst-2").learning_rate) == (1, 0.1)
    assert fine._with_options("rte").epochs == 3
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


def test_bad_data_stops_before_any_training(data: Path, tmp_path: Path) -> None:
    bench = work(tmp_path)
    (data / "SST-2" / "dev.tsv").write_text("sentence\tlabel\nfine\t2\n")
    with pytest.raises(KronpressError, match=r"dev\.tsv, line 2"):
        step(data).check(bench)
    with pytest.raises(KronpressError, match="no data for 'rte'"):
        Finetune(tasks="rte").check(bench)
    assert not (tmp_path / "step").exists()


def test_the_log_has_every_epoch(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contest.shutil, "rmtree", lambda *_, **__: None)
    step(data, seeds=1, epochs=2.5).run(work(tmp_path))
    lines = read_log(next((tmp_path / "step").rglob("teacher/seed-0/dev.jsonl")))
    assert [line["epoch"] for line in lines] == [1.0, 2.0, 2.5]


def test_plain_fine_tuning_needs_no_teacher(data: Path, tmp_path: Path) -> None:
    plain = {"cross_entropy": 1}
    found = step(data, teacher=None, losses=plain, seeds=1, epochs=1).run(work(tmp_path))["tasks"][0]["rows"]
    assert [row["model"] for row in found] == ["student"]
    with pytest.raises(ValueError, match="loss 'logits' of the student compares with a teacher; give teacher"):
        step(data, teacher=None)
    with pytest.raises(ValueError, match="loss 'logits' of the other compares"):
        step(data, teacher=None, losses=plain, baselines={"other": {"losses": {"logits": 1}}})


def test_a_folder_with_other_settings_data_or_teacher_is_refused(data: Path, tmp_path: Path) -> None:
    bench = work(tmp_path)
    step(data, seeds=1, epochs=1).run(bench)
    again = step(data, seeds=1, epochs=1).run(bench)["tasks"][0]["rows"]
    assert [row["model"] for row in again] == ["teacher", "student"]
    for fields, named in (
        ({"learning_rate": 0.001}, "'student' fine-tuned with other learning_rate;"),
        ({"seeds": 2}, "'teacher' fine-tuned with other seeds;"),
        ({"losses": {"logits": 1}}, "'student' fine-tuned with other losses;"),
        ({"warmup": 0.5}, "'teacher' fine-tuned with other warmup;"),
    ):
        with pytest.raises(KronpressError, match=named):
            step(data, **({"seeds": 1, "epochs": 1} | fields)).run(bench)
    with torch.no_grad():
        bench.student.bert.embeddings.word_embeddings.weight[0] += 1  # type: ignore[union-attr]
    with pytest.raises(KronpressError, match="'student' fine-tuned with other start;"):
        step(data, seeds=1, epochs=1).run(bench)
    (data / "SST-2" / "dev.tsv").write_text("sentence\tlabel\nsun\t0\nmoon\t1\n")
    with pytest.raises(KronpressError, match="'teacher' fine-tuned with other data; name another folder"):
        step(data, seeds=1, epochs=1).run(bench)


def test_data_from_elsewhere_is_read_as_its_own_task_says(data: Path, tmp_path: Path) -> None:
    reviews = tmp_path / "imdb.jsonl"
    reviews.write_text(json.dumps({"text": "sun " * 30 + "moon", "label": 1}) + "\n")
    bench = work(tmp_path)
    fine = step(data, also={"imdb": str(reviews)})._data("sst-2")
    contender = contest.Contender("student", bench.student, bench.tokenizer, {}, epochs=1, learning_rate=0.1)
    own = fine.features(fine.dev, contender)
    (review,) = fine.features(fine.also["imdb"], contender, task=TASKS["imdb"])
    assert max(len(each.ids) for each in own) <= TASKS["sst-2"].max_length < len(review.ids)
    assert len(review.ids) == 30 * len("sun ") + len("moon")  # all of it; one token is a byte here


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
    _cola(data, count=32)
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


def diverging(monkeypatch: pytest.MonkeyPatch, *broken: int) -> list[int]:
    """Let the model be not a number from these measurements on, counted from 0; return those made so far."""
    measured, made = contest.Contest._measure, list[int]()

    def measure(self: Any, model: Any, features: Any) -> Any:
        made.append(len(made))
        if made[-1] in broken:
            next(iter(model.parameters())).data.fill_(torch.nan)
        return measured(self, model, features)

    monkeypatch.setattr(contest.Contest, "_measure", measure)
    return made


def test_a_run_that_diverges_is_left_out_and_told(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = diverging(monkeypatch, 0, 1)
    fine = step(data, seeds=3, epochs=2, teacher=None, losses={"cross_entropy": 1})
    (found,) = fine.run(work(tmp_path))["tasks"]
    (row,) = found["rows"]
    assert len(made) == 1 + 1 + 2, "the first two seeds end with their first measurement"
    assert [each["seed"] for each in row["seeds"]] == [2] and row["diverged"] == 2
    assert row["score"] == row["seeds"][0]["score"] and row["best_seed"] == 2 and row["deviation"] is None


def test_a_run_that_diverges_late_has_its_best_epoch(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = diverging(monkeypatch, 1)
    fine = step(data, seeds=1, epochs=3, teacher=None, losses={"cross_entropy": 1})
    (found,) = fine.run(work(tmp_path))["tasks"]
    (row,) = found["rows"]
    assert row["diverged"] == 0 and row["seeds"][0]["epoch"] == 1 and len(made) == 2
    saved = load(tmp_path / "step" / "sst-2" / "student")
    assert all(value.isfinite().all() for value in saved.state_dict().values())


def test_where_all_runs_diverge_the_step_stops_and_says_so(data: Path, tmp_path: Path) -> None:
    fine = step(
        data, seeds=2, learning_rate=1e30, warmup=0, max_grad_norm=1e30, teacher=None, losses={"cross_entropy": 1}
    )
    for _ in range(2):  # also where it is resumed
        with pytest.raises(
            KronpressError, match=r"'student' diverged with every seed; .* below 1e\+30 and a new folder"
        ):
            fine.run(work(tmp_path))


def test_weights_of_a_lost_future_are_not_taken(data: Path, tmp_path: Path) -> None:
    """After a kill, the best weights are those that the log speaks of, also where a later, better file was written."""
    model = with_head(tiny_bert(), TASKS["sst-2"], tiny_tokenizer())
    scores = iter([50.0, 40.0, 90.0, 45.0])
    selection = Selection(tmp_path, model, measure=lambda: (next(scores), {}), every=1)
    state, control = TrainerState(max_steps=9, is_world_process_zero=True), TrainerControl()
    arguments = TrainingArguments(output_dir=str(tmp_path / "trainer"), report_to="none")
    marks = []
    for state.global_step in (1, 2, 3):
        with torch.no_grad():
            model.classifier.bias.fill_(state.global_step)  # type: ignore[operator,union-attr]
        selection.on_step_end(arguments, state, control)
        if state.global_step == 2:
            (tmp_path / "trainer" / "checkpoint-2").mkdir(parents=True)
            selection.on_save(arguments, state, control)
        marks.append(sorted(path.name for path in tmp_path.glob("best-*")))
    assert marks == [["best-1.safetensors"], ["best-1.safetensors"], ["best-1.safetensors", "best-3.safetensors"]]
    state.global_step = 2
    selection.on_train_begin(arguments, state, control)
    state.global_step = 3
    selection.on_step_end(arguments, state, control)
    found = selection.take_best()
    assert (found["step"], found["score"]) == (1, 50.0)
    assert model.classifier.bias.tolist() == [1.0, 1.0]  # type: ignore[union-attr]
    selection.on_save(arguments, state, control)
    assert [path.name for path in tmp_path.glob("best-*")] == ["best-1.safetensors"]


def _cola(data: Path, *, count: int) -> None:
    (data / "CoLA").mkdir()
    for split in ("train", "dev"):
        lines = [f"x\t{i % 2}\t\t{line.partition(chr(9))[0]} again" for i, line in enumerate(rows(count, seed=5))]
        (data / "CoLA" / f"{split}.tsv").write_text("\n".join(lines) + "\n")


def test_a_task_begins_with_the_models_of_the_task_before(data: Path, tmp_path: Path) -> None:
    _cola(data, count=32)
    tasks = {"cola": {"after": "sst-2", "losses": {"logits": 1, "cross_entropy": 2}}, "sst-2": {}}
    fine = step(data, tasks=tasks, seeds=1, epochs=1, baselines={"plain": {}})
    bench = work(tmp_path)
    fine.check(bench)
    after, first = fine.run(bench)["tasks"]
    assert (after["task"], after["after"], first["task"], first["after"]) == ("cola", "sst-2", "sst-2", None)
    for row, earlier in zip(after["rows"], first["rows"], strict=True):
        model = load(tmp_path / "step" / "sst-2" / row["model"])
        assert row["settings"]["start"] == weights_digest(model) != earlier["settings"]["start"]
    assert [row["losses"] for row in after["rows"][1:]] == [
        {"logits": "logits", "cross_entropy": "cross_entropy"},
        {"cross_entropy": "cross_entropy"},
    ]
    assert set(first["rows"][1]["losses"]) == {"logits", "hidden"}
    assert fine.run(bench)["tasks"] == [after, first]


def test_nothing_of_a_dev_set_is_read_in_another_task(data: Path, tmp_path: Path) -> None:
    _cola(data, count=32)
    dev = (data / "CoLA" / "dev.tsv").read_text().splitlines()
    with (data / "SST-2" / "train.tsv").open("a") as file:
        file.writelines(f"{line.split(chr(9))[-1].upper()} !\t1\n" for line in dev[:5])
    fine = step(data, tasks={"sst-2": {}, "cola": {"after": "sst-2", "unlabeled": ["sst-2"]}})
    known = {line.split("\t")[-1] for line in dev}
    left = [line for line in rows(96, seed=96) if line.split("\t")[0] not in known]
    assert len(fine._data("sst-2").train) == len(left) and fine._data("sst-2").left_out == 5 + 96 - len(left)
    assert len(fine._data("cola").unlabeled) == len(left) and len(fine._data("cola").train) == 32
    assert step(data)._data("sst-2").left_out == 0
    (data / "SST-2" / "train.tsv").write_text("\n".join(["sentence\tlabel", f"{min(known)}\t1"]) + "\n")
    with pytest.raises(KronpressError, match="all examples of 'sst-2' stand in the dev sets of cola"):
        fine._data("sst-2")


def test_texts_without_labels_are_read_by_those_that_learn_from_a_teacher(data: Path, tmp_path: Path) -> None:
    _cola(data, count=32)
    fine = step(data, tasks={"sst-2": {"unlabeled": ["cola"]}}, seeds=1, epochs=2, baselines={"plain": {}})
    (found,) = fine.run(work(tmp_path))["tasks"]
    assert found["examples"] == {"train": 96, "dev": 40, "unlabeled": 32}
    steps = {row["model"]: row["seeds"][0]["training"]["steps"] for row in found["rows"]}
    assert steps == {"teacher": 2 * 96 / 16, "student": 2 * (96 + 32) / 16, "plain": 2 * 96 / 16}


def test_texts_without_labels_must_fit(data: Path, tmp_path: Path) -> None:
    (data / "MRPC").mkdir()
    for split in ("train", "dev"):
        (data / "MRPC" / f"{split}.tsv").write_text("Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t1\t2\ta\tb\n")
    for other, message in (("mrpc", "'sst-2' and 'mrpc' have not as many texts"), ("squad", "must be tasks on texts")):
        with pytest.raises(KronpressError, match=message):
            step(data, tasks={"sst-2": {"unlabeled": [other]}}).check(work(tmp_path))
