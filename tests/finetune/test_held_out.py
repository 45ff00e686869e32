"""What is held out of a training set: a tenth, of each class, no text on both sides, and it alone selects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kronpress.checkpoint import load
from kronpress.errors import KronpressError
from kronpress.finetune.data import TaskData
from kronpress.finetune.held_out import divided
from kronpress.tasks import TASKS, Example, predict
from kronpress.tasks.squad_files import Question
from tests.finetune.words import step, work, write_cola


def pairs(count: int, *, texts: int, classes: int = 2) -> list[Example]:
    """Pairs of some texts, each of which stands in several of them; a fifth is of the last class."""
    generator = np.random.default_rng(0)
    labels = [float(index % 5 // 4 * (classes - 1)) for index in range(count)]
    words = [[f"text {number}" for number in generator.integers(texts, size=2)] for _ in labels]
    return [Example(*two, label, str(row)) for row, (two, label) in enumerate(zip(words, labels, strict=True))]


def texts_of(examples: list[Example]) -> set[str]:
    return {text for example in examples for text in (example.first, example.second or "")}


def test_a_tenth_of_each_class_is_held_out_and_no_text_stands_on_both_sides() -> None:
    examples = pairs(1000, texts=5000)
    kept, held_out = divided(TASKS["rte"], examples, seed=1)
    assert [sum(example.label == label for example in held_out) for label in (0, 1)] == [80, 20]
    assert sorted(kept + held_out, key=lambda example: int(example.name)) == examples
    assert not texts_of(kept) & texts_of(held_out)
    assert divided(TASKS["rte"], examples, seed=1) == (kept, held_out) != divided(TASKS["rte"], examples, seed=2)


def test_where_texts_link_nearly_all_pairs_no_pair_stands_on_both_sides() -> None:
    examples = pairs(1000, texts=40)
    kept, held_out = divided(TASKS["sts-b"], examples, seed=0)
    assert 50 <= len(held_out) <= 100
    assert texts_of(kept) & texts_of(held_out)
    sides = [{frozenset((example.first, example.second)) for example in side} for side in (kept, held_out)]
    assert not sides[0] & sides[1]


def test_questions_on_one_context_stay_together() -> None:
    questions = [Question(str(i), f"context {i // 5}", "what?", (("context", 0),)) for i in range(500)]
    kept, held_out = divided(TASKS["squad"], questions, seed=0)
    assert len(held_out) == 50
    assert not {question.context for question in kept} & {question.context for question in held_out}


def test_a_class_of_one_example_is_trained_on() -> None:
    examples = [Example(str(row), None, float(row == 0), str(row)) for row in range(20)]
    kept, held_out = divided(TASKS["sst-2"], examples, seed=0)
    assert kept[0] == examples[0] and len(held_out) == 2
    with pytest.raises(KronpressError, match="the 1 examples of 'sst-2' are too few to hold a tenth out; select"):
        divided(TASKS["sst-2"], examples[:1], seed=0)


def test_the_held_out_part_selects_epoch_and_seed_and_dev_reports(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_dev = iter([70.0, 90.0, 60.0, 80.0, 50.0, 40.0])
    held_out = iter([30.0, 20.0, 30.0, 10.0, 40.0, 20.0])
    heads = []

    def measure(self: TaskData, model: Any, features: Any) -> tuple[float, dict[str, float]]:
        assert len(features) == len(self.dev)
        heads.append(model.classifier.weight.detach().clone())
        score = next(on_dev)
        return score, {"accuracy": score}

    def select(self: TaskData, model: Any, features: Any) -> float:
        assert len(features) == len(self.held_out)
        return next(held_out)

    monkeypatch.setattr(TaskData, "measure", measure)
    monkeypatch.setattr(TaskData, "select", select)
    fine = step(data, select_on="train", teacher=None, losses="cross_entropy", epochs=3)
    (found,) = fine.run(work(tmp_path)).tasks
    (row,) = found.models
    told = [(seed.score, seed.held_out, seed.best_on_dev, seed.step) for seed in row.seeds]
    assert told == [(70.0, 30.0, 90.0, 6), (50.0, 40.0, 80.0, 11)]
    assert (row.score.value, row.best_seed, found.selected_on) == (60.0, 1, "train")
    assert row.best_on_dev is not None and row.best_on_dev.value == 85.0
    saved: Any = load(tmp_path / "step" / "sst-2" / "student")
    assert saved.classifier.weight.equal(heads[4])


def test_the_teacher_is_selected_by_the_same_examples(data: Path, tmp_path: Path) -> None:
    fine, bench = step(data, select_on="train", seeds=1), work(tmp_path)
    bench.seed = 3
    (found,) = fine.run(bench).tasks
    held_out = fine.read("sst-2", seed=3).held_out
    assert found.examples == {"train": 96 - len(held_out), "dev": 40, "held out": len(held_out)}
    for row in found.models:
        (run,) = row.seeds
        model = load(tmp_path / "step" / "sst-2" / row.model)
        task = TASKS["sst-2"]
        features = task.features(held_out, bench.tokenizer, max_length=64)
        scores = task.scores(held_out, task.answers(held_out, features, predict(model, features)))
        assert run.held_out == pytest.approx(task.score(scores)) and row.settings["select_on"] == "train"
        assert run.best_on_dev is not None and run.score is not None and run.best_on_dev >= run.score
    with pytest.raises(KronpressError, match="'teacher' fine-tuned with other data, select_on; name another folder"):
        step(data, seeds=1).run(bench)


def test_what_a_later_task_holds_out_is_not_read_before(data: Path) -> None:
    write_cola(data, count=32)
    (data / "CoLA" / "dev.tsv").write_text("x\t1\t\tnothing of the kind\n")
    train = [line.split("\t")[-1] for line in (data / "CoLA" / "train.tsv").read_text().splitlines()]
    with (data / "SST-2" / "train.tsv").open("a") as file:
        file.writelines(f"{text} !\t1\n" for text in train)
    tasks = {"sst-2": {"unlabeled": "cola"}, "cola": {"after": "sst-2"}}
    fine = step(data, tasks=tasks, select_on="train")
    first, later = fine.read("sst-2", seed=7), fine.read("cola", seed=7)
    held_out = {example.first for example in later.held_out}
    assert held_out and not held_out & {example.first.removesuffix(" !") for example in first.train}
    own = {example.first.removesuffix(" !") for example in first.held_out}
    assert not (held_out | own) & {example.first for example in first.unlabeled}
    assert {example.first for example in step(data, tasks=tasks).read("sst-2").unlabeled} >= held_out
    assert fine.read("cola", seed=8).held_out != later.held_out
