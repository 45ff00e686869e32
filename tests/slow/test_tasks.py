"""Fine-tuning on real tasks, and real data outside of their distribution."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

import kronpress
from kronpress.data import Corpus
from kronpress.factorize import Factorize
from kronpress.finetune import Finetune
from kronpress.step import Workbench

pytestmark = pytest.mark.slow
NOTHING = Corpus("none", "")


def bench(folder: Path) -> Workbench:
    model, tokenizer = kronpress.load_with_tokenizer("bundled:minilm-l6")
    return Workbench(copy.deepcopy(model), model, tokenizer, NOTHING, NOTHING, folder)


def test_a_student_learns_paraphrases_from_its_teacher(test_data: Path, tmp_path: Path) -> None:
    work = bench(tmp_path)
    Factorize(method={"name": "svd", "ratio": 0.5}, sites="feed_forward").run(work)
    step = Finetune(
        tasks="mrpc",
        data=str(test_data / "glue"),
        epochs=2,
        batch=16,
        learning_rate=2e-4,
        teacher={"learning_rate": 1e-4},
        losses={"logits": 1, "cross_entropy": 1},
        also={"paws": str(test_data / "ood" / "PAWS-Wiki" / "dev4000.tsv")},
    )
    (found,) = step.run(work).tasks
    teacher, student = found.models
    assert found.examples == {"train": 3668, "dev": 408}
    majority = 68.4  # accuracy of those who call everything a paraphrase
    assert teacher.metrics["accuracy"].value >= 77 > majority
    assert student.metrics["accuracy"].value >= 72 > majority
    assert student.footprint.parameters < 0.86 * teacher.footprint.parameters
    for row in (teacher, student):
        elsewhere: dict[str, Any] = row.seeds[0].elsewhere["paws"]
        assert 30 <= elsewhere["accuracy"] <= 70  # the same words in another order: near chance for every model of MRPC


def test_hans_is_answered_by_a_model_of_entailment(test_data: Path, tmp_path: Path) -> None:
    step = Finetune(
        tasks="rte",
        data=str(test_data / "glue"),
        epochs=1,
        teacher=None,
        losses={"cross_entropy": 1},
        also={"hans": str(test_data / "ood" / "HANS" / "hans_eval_restored.tsv")},
    )
    (found,) = step.run(bench(tmp_path)).tasks
    scores: dict[str, float] = found.models[0].seeds[0].elsewhere["hans"]
    cues = [value for name, value in scores.items() if name != "accuracy"]
    assert len(cues) == 3
    assert scores["accuracy"] == pytest.approx(sum(cues) / 3, abs=0.01)  # as many pairs of each
    assert 40 <= scores["accuracy"] <= 60
