from __future__ import annotations

import pytest
import torch

from kronpress.activations.trace import Sizes
from kronpress.tasks import TASKS, with_head
from kronpress.teacher import frozen_copy, live, model_inputs, task_live, text_live
from tests.tiny import VOCABULARY, some_ids, tiny_bert, tiny_llama, tiny_tokenizer


def test_it_gives_logits_a_few_tokens_at_a_time_and_the_activations_asked_for() -> None:
    model = tiny_llama()
    teacher = text_live(model, readings={"blocks"})
    predictions, trace = teacher.look({"input_ids": some_ids(), "labels": some_ids(), "teacher_ids": some_ids()})
    expected = model(input_ids=some_ids()).logits.flatten(0, 1)
    torch.testing.assert_close(predictions.at(slice(3, 7)).within(VOCABULARY).logits, expected[3:7])
    torch.testing.assert_close(predictions.within(9).logits, expected[:, :9])
    assert not predictions.hidden.requires_grad
    assert len(trace.blocks) == 3 and trace.embedding is None
    assert (teacher.offer.vocabulary, teacher.offer.sizes) == (VOCABULARY, Sizes.of(model))


def test_a_model_without_a_head_gives_activations() -> None:
    predictions, trace = text_live(tiny_llama().model, readings={"embedding"}).look({"input_ids": some_ids()})
    assert predictions.head is None and trace.embedding is not None


def test_a_model_of_a_task_gives_the_outputs_of_its_head() -> None:
    model = with_head(tiny_bert(), TASKS["mrpc"], tiny_tokenizer())
    inputs = {"input_ids": some_ids(), "attention_mask": torch.ones_like(some_ids())}
    outputs, _ = task_live(model).look({**inputs, "labels": torch.zeros(2, 1)})
    torch.testing.assert_close(outputs, model(**inputs).logits.detach())


def test_models_read_neither_labels_nor_what_a_stored_teacher_said() -> None:
    ids = some_ids()
    assert set(model_inputs({"input_ids": ids, "labels": ids, "token_type_ids": None, "teacher_outputs": ids})) == {
        "input_ids",
        "token_type_ids",
    }


@pytest.mark.parametrize(("fast", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_frozen_copy_has_the_number_format_of_training(
    fast: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "computes_in_bfloat16", lambda _: fast)
    model = tiny_llama().train()
    copied = frozen_copy(model, torch.device("cpu"))
    assert {(weight.dtype, weight.requires_grad) for weight in copied.parameters()} == {(dtype, False)}
    assert {buffer.dtype for buffer in copied.buffers()} == {buffer.dtype for buffer in model.buffers()}
    assert model.training and not copied.training
    assert all(weight.requires_grad and weight.dtype == torch.float32 for weight in model.parameters())
    assert copied.lm_head.weight is copied.model.embed_tokens.weight
