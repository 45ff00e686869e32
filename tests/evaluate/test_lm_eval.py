from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from kronpress.errors import KronpressError
from kronpress.evaluate import PROTOCOLS
from kronpress.evaluate.lm_eval import LmEvalTasks
from kronpress.evaluate.text_formats import DOCUMENTS, detokenize
from tests.tiny import factorized, logits, tiny_bert, tiny_gpt2, tiny_llama, tiny_tokenizer

QUESTIONS = [{"ask": f"{i} and one is", "choices": ["a", "bb", f"{i + 1}"], "answer": i % 3} for i in range(7)]
PAGES = [
    ' = Lobster = \n \n It \'s 3 @.@ 5 m ( 11 ft ) , he said . \n \n = = Claws = = \n \n A pair , " large " . \n',
    " = Crab = \n \n " + "It walks sideways ; it does not run . \n " * 12,
]


@pytest.fixture
def tasks(tmp_path: Path, no_shipped_tasks: None) -> Path:
    """Return a folder with a multiple-choice task and lm-eval's WikiText on texts of our own."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    _write_task(
        folder,
        "choose",
        QUESTIONS,
        output_type="multiple_choice",
        doc_to_text="{{ask}}",
        doc_to_choice="{{choices}}",
        doc_to_target="answer",
        metric_list=[{"metric": "acc"}],
    )
    (folder / "prepare.py").write_text("from lm_eval.tasks.wikitext.preprocess_wikitext import *\n")
    _write_task(
        folder,
        "pages",
        [{"page": page} for page in PAGES],
        output_type="loglikelihood_rolling",
        doc_to_text="",
        doc_to_target="!function prepare.wikitext_detokenizer",
        process_results="!function prepare.process_results",
        metric_list=[{"metric": "word_perplexity"}, {"metric": "byte_perplexity"}, {"metric": "bits_per_byte"}],
    )
    return folder


def _write_task(folder: Path, name: str, rows: list[Any], **fields: Any) -> None:
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"data_files": {"test": str(data)}, "cache_dir": str(folder / "cache")}
    task = {"task": f"kronpress_{name}", "dataset_path": "json", "dataset_kwargs": source, "test_split": "test"}
    lines = [f"{key}: {json.dumps(value)}\n" for key, value in (task | fields).items()]
    (folder / f"{name}.yaml").write_text(re.sub(r'"(!function [^"]+)"', r"\1", "".join(lines)))


@pytest.fixture(params=[tiny_llama, tiny_gpt2])
def compressed(request: pytest.FixtureRequest, tmp_path: Path) -> PreTrainedModel:
    """Return a decoder with factors everywhere, the tied embedding and head included."""
    return factorized(request.param(), tmp_path)


def log_likelihood(model: PreTrainedModel, context: str, answer: str) -> float:
    """Return ln p(answer | context), one token a byte."""
    ids = torch.tensor([tiny_tokenizer()(context + answer, add_special_tokens=False)["input_ids"]])
    rows = logits(model, ids)[0, :-1].log_softmax(dim=-1)
    return float(rows.gather(1, ids[0, 1:, None])[-len(answer) :].sum())


def test_accuracy_by_hand(compressed: PreTrainedModel, tasks: Path) -> None:
    before = logits(compressed)
    right = 0
    for row in QUESTIONS:
        scores = [log_likelihood(compressed, str(row["ask"]), f" {choice}") for choice in row["choices"]]
        right += scores.index(max(scores)) == row["answer"]
    (result,) = LmEvalTasks(("kronpress_choose",), include=str(tasks)).measure(compressed, tiny_tokenizer())
    assert (result.task, result.metric, result.filter) == ("kronpress_choose", "acc", "none")
    assert result.value == pytest.approx(right / len(QUESTIONS))
    assert result.stderr == pytest.approx((result.value * (1 - result.value) / (len(QUESTIONS) - 1)) ** 0.5)
    assert (result.examples, result.few_shot) == (len(QUESTIONS), 0)
    assert result.harness == importlib.metadata.version("lm_eval")
    assert torch.equal(logits(compressed), before)  # ties and modes are as they were


def test_our_perplexity_per_word_is_the_one_of_lm_eval(compressed: PreTrainedModel, tasks: Path) -> None:
    words, per_byte, bits = LmEvalTasks(("kronpress_pages",), include=str(tasks)).measure(compressed, tiny_tokenizer())
    assert (words.metric, per_byte.metric, bits.metric) == ("word_perplexity", "byte_perplexity", "bits_per_byte")
    protocol = dataclasses.replace(PROTOCOLS["wikitext-word"], window=compressed.config.max_position_embeddings)
    ours = protocol.measure(compressed, tiny_tokenizer(), "\n".join(PAGES), name="pages", progress=False)
    assert DOCUMENTS["pages"]("\n".join(PAGES)) == PAGES
    assert ours.windows > len(PAGES) == words.examples
    assert ours.perplexity == pytest.approx(words.value, rel=1e-5)


def test_a_limit_takes_the_first_examples(tasks: Path) -> None:
    harness = LmEvalTasks(("kronpress_choose", "kronpress_pages"), include=str(tasks), limit=1)
    results = harness.measure(tiny_llama(), tiny_tokenizer())
    assert {result.task for result in results} == {"kronpress_choose", "kronpress_pages"}
    assert {result.examples for result in results} == {1}


def test_the_detokenizer_is_the_one_of_lm_eval(tasks: Path, test_data: Path) -> None:
    theirs = importlib.import_module("lm_eval.tasks.wikitext.preprocess_wikitext").wikitext_detokenizer
    for name in ("valid.raw.txt", "valid.txt"):
        for page in DOCUMENTS["pages"]((test_data / "wikitext-2" / name).read_text(encoding="utf-8")):
            assert detokenize(page, "wikitext") == theirs({"page": page})


def test_what_can_not_be_done_is_named(tasks: Path) -> None:
    model, tokenizer = tiny_llama(), tiny_tokenizer()
    with pytest.raises(KronpressError, match=r"no task 'kronpress_chose': did you mean .*kronpress_choose"):
        LmEvalTasks(("kronpress_chose",), include=str(tasks)).check()
    with pytest.raises(KronpressError, match=r"there is no folder 'nowhere' of task files"):
        LmEvalTasks(("kronpress_choose",), include="nowhere").check()
    with pytest.raises(KronpressError, match="no task is named"):
        LmEvalTasks(()).check()
    with pytest.raises(KronpressError, match="lm-eval needs a causal language model"):
        LmEvalTasks(("kronpress_choose",), include=str(tasks)).measure(tiny_bert(), tokenizer)
    (tasks / "choose.jsonl").unlink()
    with pytest.raises(KronpressError, match=r"could not do kronpress_choose: FileNotFoundError: .*choose\.jsonl"):
        LmEvalTasks(("kronpress_choose",), include=str(tasks)).measure(model, tokenizer)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def absent(name: str, package: str | None = None) -> Any:
        if name.partition(".")[0] == "lm_eval":
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(KronpressError, match=r"^lm-eval is not installed; do: pip install lm-eval$"):
        LmEvalTasks(("piqa",)).check()
