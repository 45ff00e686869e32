from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from benchmarks import writing
from tests.tiny import bench, save_tiny, tiny_llama

pytestmark = pytest.mark.usefixtures("in_float32")


@torch.inference_mode()
def test_grams_are_counted_within_a_text_and_the_dense_model_judges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, texts = bench(tiny_llama(), tmp_path), [" a line of a line of a line of", " a line of"]
    monkeypatch.setattr(writing, "generate_samples", lambda *_, **__: texts)
    found = writing.written(work.student, work.teacher, work.tokenizer, prompts=["the", "the"], tokens=9)
    nats = grams = repeated = 0
    for text in texts:
        ids = work.tokenizer("the" + text, return_tensors="pt")["input_ids"]
        start = work.tokenizer("the", return_tensors="pt")["input_ids"].shape[1]
        likely = torch.log_softmax(work.teacher(ids).logits[0].float(), -1)
        nats -= sum(float(likely[at - 1, ids[0, at]]) for at in range(start, ids.shape[1]))
        new = ids[0, start:].tolist()
        for at in range(len(new) - 3):
            grams += 1
            repeated += new[at : at + 4] in [new[earlier : earlier + 4] for earlier in range(at)]
    assert (found.grams, found.repeated) == (grams, repeated)
    assert repeated > 0
    assert found.perplexity == pytest.approx(math.exp(nats / found.tokens), rel=1e-4)


def test_a_model_is_shown_beside_the_dense_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(save_tiny(tmp_path / "model"))
    writing.main([model, "--dense", model, "--prompt", "a line", "--tokens", "8"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith(f"| {model} | ")
    assert lines[2].endswith(" | 1.00 |")
    assert lines[-1].startswith(f"{model}: **a line**")
