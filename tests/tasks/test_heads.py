from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForSequenceClassification,
    BertForSequenceClassification,
    BertModel,
    PreTrainedModel,
    RobertaConfig,
    RobertaForMaskedLM,
)

from kronpress.checkpoint import load, save, structured_layers
from kronpress.errors import KronpressError
from kronpress.tasks import TASKS, Feature, is_headed, predict, take_head, with_head
from tests.tiny import factorized, tiny_bert, tiny_gpt2, tiny_llama, tiny_tokenizer

BUILDS: dict[str, Any] = {"bert": tiny_bert, "gpt2": tiny_gpt2, "llama": tiny_llama}
MODELS = pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)
TEXTS = [Feature(tuple(range(3, 3 + length)), None, (0.0,), 0) for length in (9, 4, 1, 7)]


@MODELS
@pytest.mark.parametrize("task", ["mrpc", "mnli", "sts-b"])
def test_a_head_has_the_outputs_of_its_task(build: Any, task: str) -> None:
    headed = with_head(build(), TASKS[task], tiny_tokenizer())
    outputs = predict(headed, TEXTS)
    assert [output.shape for output in outputs] == [(TASKS[task].outputs,)] * 4
    assert headed.config.problem_type == ("regression" if task == "sts-b" else "single_label_classification")


@MODELS
@pytest.mark.parametrize("structured", [True, False])
def test_a_model_with_a_head_opens_again(build: Any, structured: bool, tmp_path: Path) -> None:
    model = factorized(build(), tmp_path / "work", sites="all") if structured else build()
    headed = with_head(model, TASKS["mrpc"], tiny_tokenizer())
    assert bool(structured_layers(headed)) == structured
    save(headed, tmp_path / "saved", tokenizer=tiny_tokenizer())
    opened = load(tmp_path / "saved")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    for again in (opened, plain):
        for mine, theirs in zip(predict(headed, TEXTS), predict(again, TEXTS), strict=True):
            np.testing.assert_allclose(mine, theirs, atol=1e-5)


@MODELS
def test_the_model_below_the_head_is_a_copy_and_the_same(build: Any) -> None:
    model = build()
    headed = with_head(model, TASKS["mrpc"], tiny_tokenizer())
    ids = torch.tensor([[3, 4, 5, 6]])
    with torch.no_grad():
        ours = headed.base_model(input_ids=ids).last_hidden_state
        torch.testing.assert_close(ours, model.eval().base_model(input_ids=ids).last_hidden_state)
        for parameter in headed.parameters():
            parameter.zero_()
    assert any(parameter.any() for parameter in model.parameters())


def test_the_seed_draws_the_head_and_nothing_else() -> None:
    heads = [with_head(tiny_llama(), TASKS["mrpc"], tiny_tokenizer(), seed=seed).score.weight for seed in (0, 0, 1)]
    assert heads[0].equal(heads[1]) and not heads[0].equal(heads[2])
    before = torch.get_rng_state()
    with_head(tiny_llama(), TASKS["mrpc"], tiny_tokenizer())
    assert before.equal(torch.get_rng_state())


def test_a_fine_tuned_head_is_kept_and_another_tasks_replaced() -> None:
    headed = with_head(tiny_bert(), TASKS["mrpc"], tiny_tokenizer(), seed=1)
    again = with_head(headed, TASKS["mrpc"], tiny_tokenizer(), seed=2)
    assert again.classifier.weight.equal(headed.classifier.weight)
    for name in ("rte", "mnli"):  # with as many outputs, and with others
        other = with_head(headed, TASKS[name], tiny_tokenizer(), seed=2)
        assert other.classifier.weight.shape[0] == TASKS[name].outputs
        assert not other.classifier.weight[:2].equal(headed.classifier.weight)
        assert other.bert.encoder.layer[0].output.dense.weight.equal(headed.bert.encoder.layer[0].output.dense.weight)


@MODELS
def test_a_head_names_the_classes_and_saves_them(build: Any, tmp_path: Path) -> None:
    headed = with_head(build(), TASKS["sst-2"], tiny_tokenizer())
    save(headed, tmp_path / "saved")
    for model in (headed, load(tmp_path / "saved")):
        assert model.config.id2label == {0: "negative", 1: "positive"}
        assert model.config.label2id == {"negative": 0, "positive": 1}
        assert [name for name in TASKS if is_headed(model, TASKS[name])] == ["imdb", "sst-2"]


def test_a_head_without_classes_has_the_names_of_none() -> None:
    reviews = with_head(tiny_bert(), TASKS["sst-2"], tiny_tokenizer())
    for name in ("squad", "sts-b"):
        found = with_head(reviews, TASKS[name], tiny_tokenizer()).config.id2label
        assert found == {index: f"LABEL_{index}" for index in range(TASKS[name].outputs)}


@pytest.mark.parametrize(
    ("names", "fits"),
    [
        (["entailment", "neutral", "contradiction"], True),
        (["ENTAILMENT", "Neutral", "CONTRADICTION"], True),
        (["LABEL_0", "LABEL_1", "LABEL_2"], True),
        (["0", "1", "2"], True),
        (["CONTRADICTION", "ENTAILMENT", "NEUTRAL"], False),
        (["LABEL_2", "LABEL_1", "LABEL_0"], False),
        (["bad", "fair", "good"], False),
        (["entailment", "neutral"], False),
    ],
)
def test_classes_are_told_by_name_and_order(names: list[str], fits: bool) -> None:
    config = tiny_bert(id2label=dict(enumerate(names))).config
    teacher = BertForSequenceClassification(config)
    assert is_headed(teacher, TASKS["mnli"]) == fits
    kept = with_head(teacher, TASKS["mnli"], tiny_tokenizer(), seed=5)
    assert kept.config.id2label == {0: "entailment", 1: "neutral", 2: "contradiction"}
    assert kept.classifier.weight.equal(teacher.classifier.weight) == fits


@pytest.mark.parametrize(
    ("problem", "outputs", "task"),
    [
        (None, 1, "sts-b"),
        ("regression", 1, "sts-b"),
        ("regression", 2, None),
        (None, 2, "mrpc"),
        ("single_label_classification", 2, "mrpc"),
        ("multi_label_classification", 2, None),
    ],
)
def test_the_kind_of_problem_is_read_as_transformers_does(problem: str | None, outputs: int, task: str | None) -> None:
    model = BertForSequenceClassification(tiny_bert(num_labels=outputs, problem_type=problem).config)
    assert [name for name in ("sts-b", "mrpc", "squad") if is_headed(model, TASKS[name])] == ([task] if task else [])


def test_a_decoder_reads_the_last_token_before_the_padding() -> None:
    for build in (tiny_llama, tiny_gpt2):
        headed = with_head(build(), TASKS["mrpc"], tiny_tokenizer())
        together = predict(headed, TEXTS)
        for text, output in zip(TEXTS, together, strict=True):
            with torch.no_grad():
                alone = headed(input_ids=torch.tensor([text.ids])).logits[0].numpy()
            np.testing.assert_allclose(output, alone, rtol=0.05, atol=0.02)


def test_a_tokenizer_without_padding_pads_with_its_end() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    headed = with_head(tiny_llama(), TASKS["mrpc"], tokenizer)
    assert headed.config.pad_token_id == tokenizer.pad_token_id == tokenizer.eos_token_id
    tokenizer.pad_token = tokenizer.eos_token = None
    with pytest.raises(KronpressError, match="neither a padding token nor an end"):
        with_head(tiny_llama(), TASKS["mrpc"], tokenizer)


def test_an_encoder_without_a_pooler_gets_one_and_spans_need_none() -> None:
    headed = with_head(tiny_bert(), TASKS["mrpc"], tiny_tokenizer())
    assert headed.bert.pooler is not None
    spans = with_head(headed, TASKS["squad"], tiny_tokenizer())
    assert spans.bert.pooler is None
    starts_and_ends = predict(spans, TEXTS)
    assert [each.shape for each in starts_and_ends] == [(2, 9), (2, 4), (2, 1), (2, 7)]


def test_a_pooler_that_a_checkpoint_lacks_is_drawn_by_the_seed(tmp_path: Path) -> None:
    BertModel(tiny_bert().config, add_pooling_layer=False).save_pretrained(tmp_path)
    poolers = [
        with_head(load(tmp_path), TASKS["mrpc"], tiny_tokenizer(), seed=seed).bert.pooler.dense.weight
        for seed in (1, 1, 2)
    ]
    assert poolers[0].equal(poolers[1]) and not poolers[0].equal(poolers[2])


def test_a_base_model_can_have_a_head() -> None:
    core: PreTrainedModel = BertModel(tiny_bert().config).eval()
    headed = with_head(core, TASKS["mrpc"], tiny_tokenizer())
    assert predict(headed, TEXTS)[0].shape == (2,)


def test_predicting_leaves_the_mode_as_it_was() -> None:
    headed = with_head(tiny_bert(hidden_dropout_prob=0.5), TASKS["mrpc"], tiny_tokenizer()).train()
    first, second = predict(headed, TEXTS), predict(headed, TEXTS)
    assert headed.training
    for mine, theirs in zip(first, second, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@MODELS
def test_a_student_takes_its_teachers_head(build: Any) -> None:
    teacher = with_head(build(seed=1), TASKS["mrpc"], tiny_tokenizer(), seed=1)
    student = with_head(build(seed=2), TASKS["mrpc"], tiny_tokenizer(), seed=2)
    blocks = {name: value.clone() for name, value in student.base_model.state_dict().items() if "pooler" not in name}
    assert take_head(student, teacher)
    for name, value in student.state_dict().items():
        if "pooler" in name or not name.startswith(student.base_model_prefix):
            assert value.equal(teacher.state_dict()[name])
    for name, value in blocks.items():
        assert student.base_model.state_dict()[name].equal(value)


def test_a_head_of_other_width_or_outputs_is_left() -> None:
    student = with_head(tiny_bert(), TASKS["mrpc"], tiny_tokenizer())
    before = student.classifier.weight.clone()
    assert not take_head(student, with_head(tiny_bert(hidden_size=32), TASKS["mrpc"], tiny_tokenizer()))
    assert not take_head(student, with_head(tiny_bert(), TASKS["mnli"], tiny_tokenizer()))
    assert student.classifier.weight.equal(before)


@pytest.mark.parametrize("task", ["sts-b", "rte", "squad"])
def test_a_fine_tuned_model_opens_again(task: str, tmp_path: Path) -> None:
    """Also with a single output, whose spread is none."""
    model = with_head(tiny_bert(), TASKS[task], tiny_tokenizer())
    save(model, tmp_path / "saved", tokenizer=tiny_tokenizer())
    opened = load(tmp_path / "saved")
    assert is_headed(opened, TASKS[task])
    weights = load_file(tmp_path / "saved" / "model.safetensors")
    name = next(name for name in weights if name.endswith("layer.1.output.dense.weight"))
    save_file(weights | {name: 2 * weights[name]}, tmp_path / "saved" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(KronpressError, match="deviate from the recorded probe"):
        load(tmp_path / "saved")


def test_padding_that_would_move_the_positions_is_refused() -> None:
    tokenizer = tiny_tokenizer()
    sizes = {"vocab_size": 264, "hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 4}
    model = RobertaForMaskedLM(RobertaConfig(**sizes, num_hidden_layers=1, max_position_embeddings=300))
    with pytest.raises(KronpressError, match=f"padding token 1, and its tokenizer pads with {tokenizer.pad_token_id}"):
        with_head(model, TASKS["mrpc"], tokenizer)
    model.config.pad_token_id = tokenizer.pad_token_id
    assert with_head(model, TASKS["mrpc"], tokenizer).config.pad_token_id == tokenizer.pad_token_id
