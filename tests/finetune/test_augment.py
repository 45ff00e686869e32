"""A step whose students read copies of the training examples with words replaced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kronpress.checkpoint import load
from kronpress.checkpoint.digests import weights_digest
from kronpress.errors import KronpressError
from kronpress.finetune import Finetune
from kronpress.finetune.augment import Augmentation
from kronpress.run import Recipe, read_recipe
from kronpress.step import Workbench
from tests.finetune.words import step, word_tokenizer, work, write_cola
from tests.tiny import tiny_bert

AUGMENT = {"copies": 2, "candidates": 5}


def bench_with_words(folder: Path) -> Workbench:
    bench = work(folder)
    bench.tokenizer = word_tokenizer()
    return bench


def test_student_and_baselines_read_copies_and_the_teacher_does_not(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields: dict[str, Any] = {"seeds": 1, "epochs": 0.2, "baselines": {"plain": {}}, "augment": AUGMENT}
    fine, bench = step(data, **fields), bench_with_words(tmp_path)
    fine.check(bench)
    (found,) = fine.run(bench).tasks
    copies = found.examples["augmented"]
    assert list(found.examples) == ["train", "dev", "augmented"] and 96 < copies <= 2 * 96
    steps = {row.model: row.seeds[0].training.steps for row in found.models if row.seeds[0].training}
    more = round(0.2 * (96 + copies) / 16)
    assert steps == {"teacher": 1, "student": more, "plain": more} and more > 2
    settings = {row.model: row.settings["augment"] for row in found.models}
    assert settings["teacher"] is None and settings["student"] == settings["plain"] and settings["student"]
    assert fine.run(bench).tasks == (found,)
    with pytest.raises(KronpressError, match="'student' fine-tuned with other augment; name another folder"):
        step(data, **fields | {"augment": AUGMENT | {"copies": 1}}).run(bench)
    plain = step(data, **fields | {"augment": None}).run(bench_with_words(tmp_path / "plain")).tasks[0]
    assert plain.models[0].score == found.models[0].score and list(plain.examples) == ["train", "dev"]
    teachers = [load(tmp_path / place / "step" / "sst-2" / "teacher") for place in (".", "plain")]
    assert weights_digest(teachers[0]) == weights_digest(teachers[1])


def test_a_run_that_goes_on_reads_the_copies_that_were_made(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fine = step(data, seeds=1, epochs=0.5, teacher=None, losses="cross_entropy", augment=AUGMENT)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(
            "kronpress.finetune.comparison.train", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        fine.run(bench_with_words(tmp_path))
    file = tmp_path / "step" / "sst-2" / ".work" / ".augmented.jsonl"
    copies = file.read_text().count("\n") - 1
    monkeypatch.setattr(Augmentation, "copies", None)
    assert fine.run(bench_with_words(tmp_path)).tasks[0].examples["augmented"] == copies > 0
    assert not file.exists()


def test_a_task_may_differ_and_what_is_held_out_is_never_made(data: Path, tmp_path: Path) -> None:
    write_cola(data, count=32)
    options: dict[str, Any] = {"seeds": 1, "epochs": 0.2, "teacher": None, "losses": "cross_entropy"}
    tasks: dict[str, Any] = {"sst-2": {}, "cola": {"augment": None}}
    first, second = (
        step(data, tasks=tasks, augment=AUGMENT, select_on="train", **options).run(bench_with_words(tmp_path)).tasks
    )
    assert "augmented" in first.examples and "augmented" not in second.examples
    own = step(data, tasks={"sst-2": {"augment": AUGMENT}, "cola": {}}, **options)
    assert [own.plan(name).augment is None for name in ("sst-2", "cola")] == [False, True]
    assert own.needs().teacher and not step(data, **options).needs().teacher
    read = step(data, tasks={"sst-2": {}, "cola": {"after": "sst-2"}}, select_on="train", **options)
    unseen = read.read("sst-2").unseen
    for part in (
        read.read("sst-2").dev,
        read.read("sst-2").held_out,
        read.read("cola").dev,
        read.read("cola").held_out,
    ):
        assert part and all(example in unseen for example in part)


def test_a_masked_language_model_may_name_the_words(data: Path, tmp_path: Path) -> None:
    masked = tmp_path / "masked"
    tiny_bert(seed=3).save_pretrained(masked)
    word_tokenizer().save_pretrained(masked)
    options: dict[str, Any] = {"seeds": 1, "epochs": 0.2, "teacher": None, "losses": "cross_entropy"}
    fine = step(data, augment=AUGMENT | {"model": str(masked)}, **options)
    assert f"the model '{masked}'" in fine.sources()
    bench = bench_with_words(tmp_path)
    fine.check(bench)
    assert fine.run(bench).tasks[0].examples["augmented"] > 96
    with pytest.raises(KronpressError, match="nowhere"):
        step(data, augment=AUGMENT | {"model": str(tmp_path / "nowhere")}, **options).check(bench)


def test_what_cannot_be_augmented_is_named_before_anything_is_trained(data: Path, tmp_path: Path) -> None:
    with pytest.raises(
        KronpressError, match=r"tokens of the recipe's model are whole words, too few for candidates=15"
    ):
        step(data, augment={}).check(work(tmp_path))
    with pytest.raises(ValueError, match=r"answers of 'squad' stand at places .* give tasks: {squad: {augment: null}}"):
        step(data, tasks=["squad", "sst-2"], augment={})
    step(data, tasks={"squad": {"augment": None}, "sst-2": {}}, augment={})
    for wrong in ({"probability": 0}, {"copies": 0}, {"tokens": 3}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            step(data, augment=wrong)
        with pytest.raises(ValueError, match=next(iter(wrong))):
            step(data, tasks={"sst-2": {"augment": wrong}})


def test_a_recipe_that_is_spelled_out_says_the_same(data: Path, tmp_path: Path) -> None:
    tasks = {"sst-2": {}, "cola": {"augment": None}, "rte": {"augment": {"copies": 3}}}
    fine = {"step": "finetune", "tasks": tasks, "data": str(data), "augment": AUGMENT, "select_on": "train"}
    recipe = Recipe.model_validate({"model": "bundled:minilm-l6", "steps": [fine]})
    (tmp_path / "again.yaml").write_text(recipe.to_yaml())
    again = read_recipe(tmp_path / "again.yaml")
    assert again.steps == recipe.steps
    (read,) = again.steps
    assert isinstance(read, Finetune)
    copies = [augment and augment.copies for augment in (read.plan(name).augment for name in tasks)]
    assert copies == [2, None, 3]
