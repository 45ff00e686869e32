"""Outputs are compared over all tokens, whatever the batches."""

from __future__ import annotations

import copy

import pytest
import torch

from kronpress.evaluate import fidelity
from tests.tiny import VOCABULARY, tiny_bert, tiny_llama

WINDOWS = torch.arange(6 * 8).remainder(VOCABULARY).view(6, 8)  # a batch of four, and one of two


def test_a_model_equals_itself() -> None:
    model = tiny_bert()
    found = fidelity(model, copy.deepcopy(model), WINDOWS)
    assert (found.cosine, found.relative_error, found.windows) == (pytest.approx(1.0), 0.0, 6)


def test_cosine_and_error_by_hand() -> None:
    teacher, student = tiny_bert(), tiny_bert(seed=1)
    with torch.no_grad():
        wanted, found = (model(input_ids=WINDOWS)[0] for model in (teacher, student))
    measured = fidelity(teacher, student, WINDOWS)
    assert measured.cosine == pytest.approx(float(torch.cosine_similarity(wanted, found, dim=-1).mean()), abs=1e-2)
    assert measured.relative_error == pytest.approx(float((wanted - found).norm() / wanted.norm()), rel=1e-2)


def test_modes_are_restored() -> None:
    teacher, student = tiny_bert(), tiny_bert(seed=1)
    student.train()
    fidelity(teacher, student, WINDOWS)
    assert student.training and not teacher.training


def test_a_smaller_output_has_the_direction_and_not_the_size() -> None:
    model = tiny_llama(tied=False)
    student = copy.deepcopy(model)
    with torch.no_grad():
        student.lm_head.weight.mul_(0.5)
    found = fidelity(model, student, WINDOWS)
    assert found.cosine == pytest.approx(1.0, abs=1e-2)
    assert found.relative_error == pytest.approx(0.5, abs=1e-2)
