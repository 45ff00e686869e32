"""Whether a teacher is run or stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from kronpress.losses import parse_losses
from kronpress.tasks import TASKS, Feature, with_head
from kronpress.teacher import LiveTeacher, Storage, task_teacher, text_teacher
from kronpress.teacher.task_outputs import StoredTask, activation_bytes
from kronpress.teacher.text_outputs import StoredText
from tests.teacher.asking import text
from tests.tiny import VOCABULARY, tiny_bert, tiny_llama, tiny_tokenizer

FEATURES = [Feature(tuple(range(3, 3 + length)), None, (0.0,), length) for length in (2, 5)]
STATES: set[Any] = {"blocks"}


@pytest.mark.parametrize(
    ("readings", "fields", "stored"),
    [
        (set(), {}, True),
        (set(), {"passes": 1, "needed": 99}, True),
        (STATES, {"passes": 2, "needed": 10}, True),
        (STATES, {"passes": 1.9, "needed": 10}, False),
        (STATES, {"passes": 2, "needed": 11}, False),
        ({"attentions"}, {"passes": 9}, False),
    ],
    ids=str,
)
def test_a_teacher_is_stored_where_that_pays_and_fits(
    readings: set[Any], fields: dict[str, Any], stored: bool, tmp_path: Path
) -> None:
    assert Storage(tmp_path, 10).pays(readings, **fields) == stored
    for wanted in (True, False):
        assert Storage(tmp_path, 10, wanted=wanted).pays(readings, **fields) == wanted


def of_text(folder: Path, losses: Any, *, wanted: bool, open_model: Any = tiny_llama) -> Any:
    return text_teacher(
        parse_losses(losses),
        text(),
        open_model=open_model,
        vocabulary=VOCABULARY,
        device=torch.device("cpu"),
        storage=Storage(folder, 2**20, wanted=wanted),
    )


def test_a_stored_teacher_of_a_text_is_opened_without_its_model(tmp_path: Path) -> None:
    losses = {"logits": {"top_k": 4}}
    first = of_text(tmp_path, losses, wanted=True)
    assert isinstance(first, StoredText) and first.models == () and first.offer.top_k == 4

    def missing() -> Any:
        raise AssertionError("the model is not needed")

    again = of_text(tmp_path, losses, wanted=True, open_model=missing)
    assert torch.equal(again.said(0)["teacher_ids"], first.said(0)["teacher_ids"])
    live = of_text(tmp_path, losses, wanted=False)
    assert isinstance(live, LiveTeacher) and live.offer.vocabulary == VOCABULARY
    assert of_text(tmp_path, "cross_entropy", wanted=False, open_model=missing) is None


def test_a_teacher_of_a_task_is_run_where_storing_does_not_pay(tmp_path: Path) -> None:
    model = with_head(tiny_bert(), TASKS["mrpc"], tiny_tokenizer())
    needed = activation_bytes(model, FEATURES, STATES)

    def chosen(losses: Any, *, passes: float = 2, max_bytes: int = needed) -> Any:
        storage = Storage(tmp_path, max_bytes)
        return task_teacher(parse_losses(losses), FEATURES, model=model, passes=passes, storage=storage)

    assert chosen("cross_entropy") is None
    assert isinstance(chosen("logits", passes=1, max_bytes=0), StoredTask)
    assert isinstance(chosen("hidden"), StoredTask)
    assert isinstance(chosen("hidden", max_bytes=needed - 1), LiveTeacher)
    assert isinstance(chosen("hidden", passes=1), LiveTeacher)
    run = chosen({"attention": 1, "hidden": 1})
    assert isinstance(run, LiveTeacher) and run.models == (model,)
    assert run.offer.readings == {"attentions", "blocks"}
