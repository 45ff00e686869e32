from __future__ import annotations

import json
from pathlib import Path

import pytest

from kronpress.errors import KronpressError
from kronpress.finetune import Finetune
from kronpress.finetune.candidate import Candidate
from kronpress.tasks import TASKS
from tests.finetune.words import WORDS, rows, step, work, write_cola


def test_data_from_elsewhere_is_read_as_its_own_task_says(data: Path, tmp_path: Path) -> None:
    reviews = tmp_path / "imdb.jsonl"
    reviews.write_text(json.dumps({"text": "sun " * 30 + "moon", "label": 1}) + "\n")
    bench = work(tmp_path)
    fine = step(data, also={"imdb": str(reviews)}).read("sst-2")
    candidate = Candidate("student", bench.student, bench.tokenizer, {}, epochs=1, learning_rate=0.1)
    own = fine.features(fine.dev, candidate)
    (review,) = fine.features(fine.also["imdb"], candidate, task=TASKS["imdb"])
    assert max(len(each.ids) for each in own) <= TASKS["sst-2"].max_length < len(review.ids)
    assert len(review.ids) == 30 * len("sun ") + len("moon")  # all of it; one token is a byte here


def test_nothing_of_a_dev_set_is_read_in_another_task(data: Path, tmp_path: Path) -> None:
    write_cola(data, count=32)
    dev = (data / "CoLA" / "dev.tsv").read_text().splitlines()
    with (data / "SST-2" / "train.tsv").open("a") as file:
        file.writelines(f"{line.split(chr(9))[-1].upper()} !\t1\n" for line in dev[:5])
    fine = step(data, tasks={"sst-2": {}, "cola": {"after": "sst-2", "unlabeled": ["sst-2"]}})
    known = {line.split("\t")[-1] for line in dev}
    left = [line for line in rows(96, seed=96) if line.split("\t")[0] not in known]
    assert len(fine.read("sst-2").train) == len(left) and fine.read("sst-2").left_out == 5 + 96 - len(left)
    assert len(fine.read("cola").unlabeled) == len(left) and len(fine.read("cola").train) == 32
    assert step(data).read("sst-2").left_out == 0
    (data / "SST-2" / "train.tsv").write_text("\n".join(["sentence\tlabel", f"{min(known)}\t1"]) + "\n")
    with pytest.raises(KronpressError, match="all examples of 'sst-2' stand in the dev sets of cola"):
        fine.read("sst-2")


def test_texts_without_labels_are_read_by_those_that_learn_from_a_teacher(data: Path, tmp_path: Path) -> None:
    write_cola(data, count=32)
    fine = step(data, tasks={"sst-2": {"unlabeled": ["cola"]}}, seeds=1, epochs=2, baselines={"plain": {}})
    (found,) = fine.run(work(tmp_path)).tasks
    assert found.examples == {"train": 96, "dev": 40, "unlabeled": 32}
    steps = {row.model: row.seeds[0].training.steps for row in found.models}
    assert steps == {"teacher": 2 * 96 / 16, "student": 2 * (96 + 32) / 16, "plain": 2 * 96 / 16}


def test_texts_without_labels_must_fit(data: Path, tmp_path: Path) -> None:
    (data / "MRPC").mkdir()
    for split in ("train", "dev"):
        (data / "MRPC" / f"{split}.tsv").write_text("Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t1\t2\ta\tb\n")
    for other, message in (("mrpc", "'sst-2' and 'mrpc' have not as many texts"), ("squad", "must be tasks on texts")):
        with pytest.raises(KronpressError, match=message):
            step(data, tasks={"sst-2": {"unlabeled": [other]}}).check(work(tmp_path))


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
    for row in fine.run(bench).tasks[0].models:
        assert set(row.seeds[0].elsewhere["hans"]) >= {"accuracy", "accuracy/subsequence"}
    with pytest.raises(KronpressError, match="no task of this step answers 'hans'"):
        step(tmp_path, also={"hans": str(hans)}).check(bench)
    with pytest.raises(KronpressError, match="also: 'rte' has training data of its own; put it under tasks"):
        step(tmp_path, also={"rte": str(folder)}).check(bench)


def test_bad_data_stops_before_any_training(data: Path, tmp_path: Path) -> None:
    bench = work(tmp_path)
    (data / "SST-2" / "dev.tsv").write_text("sentence\tlabel\nfine\t2\n")
    with pytest.raises(KronpressError, match=r"dev\.tsv, line 2"):
        step(data).check(bench)
    with pytest.raises(KronpressError, match="no data for 'rte'"):
        Finetune(tasks="rte").check(bench)
    assert not (tmp_path / "step").exists()
