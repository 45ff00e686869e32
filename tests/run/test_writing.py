"""Text that the model of a run writes itself."""

from __future__ import annotations

import json
import re
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from kronpress.cache import cache_folder
from kronpress.checkpoint import load_with_tokenizer
from kronpress.errors import KronpressError
from kronpress.run import execute, make_recipe, writing
from kronpress.run.inputs import Texts
from kronpress.run.recipe import Recipe
from kronpress.run.writing import with_self_text
from tests.tiny import TEXT, save_tiny, tiny_bert, tiny_tokenizer

TEMPLATE = "{% for message in messages %}<s>{{ message.role }}: {{ message.content }}</s>{% endfor %}"
SHORT = {"tokens": 1024, "length": 16}  # two batches


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_tiny(tmp_path / "model")


def recipe(model: Path, **data: Any) -> Recipe:
    steps = [{"step": "pretrain", "tokens": 64, "window": 32, "batch": 1}]
    return make_recipe({"model": str(model), "data": {"train": "self", "self_text": SHORT} | data, "steps": steps})


def written(recipe: Recipe) -> list[str]:
    """Return the documents that a model writes."""
    shares = with_self_text(recipe).train
    assert isinstance(shares, dict)
    lines = Path(shares["self"].source).read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


def test_it_writes_as_much_as_is_asked_for_without_marks_of_texts(model: Path) -> None:
    texts = written(recipe(model))
    tokenizer = tiny_tokenizer()
    assert sum(len(tokenizer(text)["input_ids"]) for text in texts) > 0.8 * 1024
    assert not any(mark in text for text in texts for mark in tokenizer.all_special_tokens)
    assert len(set(texts)) > 0.9 * len(texts)


def test_a_seed_writes_the_same_again_and_another_one_other_texts(model: Path) -> None:
    first = written(recipe(model))
    for path in cache_folder().rglob("self.jsonl"):
        path.unlink()
    assert written(recipe(model)) == first
    assert written(recipe(model, self_text=SHORT | {"seed": 1})) != first


@pytest.mark.usefixtures("in_float32")
@pytest.mark.parametrize("beginning", ["<s>", "<|endoftext|>"])
def test_it_draws_from_the_models_distribution(model: Path, beginning: str) -> None:
    """At a temperature of almost 0 every text is the greedy one after what stands before a document."""
    if beginning == "<|endoftext|>":  # beside a bos, which then begins no document
        for path in model.glob("tokenizer*.json"):
            path.write_text(path.read_text(encoding="utf-8").replace("[UNK]", beginning), encoding="utf-8")
    texts = written(recipe(model, self_text=SHORT | {"temperature": 1e-4}))
    loaded, tokenizer = load_with_tokenizer(str(model))
    ids = tokenizer(beginning, return_tensors="pt")["input_ids"]
    loaded.generation_config.eos_token_id = None
    (greedy,) = loaded.generate(ids, do_sample=False, max_new_tokens=15, pad_token_id=0).tolist()
    special = {*tokenizer.all_special_ids, *ids[0].tolist()}
    runs = tokenizer.decode([id_ if id_ not in special else tokenizer.pad_token_id for id_ in greedy]).split("[PAD]")
    assert set(texts) == {run.strip() for run in runs if run.strip()}


def test_what_was_written_before_an_interruption_is_not_written_again(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = written(recipe(model))
    (path,) = cache_folder().rglob("self.jsonl")
    path.unlink()
    calls: list[Any] = []

    def killed(path: Path, value: Any) -> None:
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        original(path, value)

    original = writing.files.write_json
    monkeypatch.setattr(writing.files, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        written(recipe(model))
    assert [part.name for part in path.parent.glob("batch-*")] == ["batch-00000.json"]
    assert written(recipe(model)) == whole
    assert [file.name for file in calls] == ["batch-00000.json", "batch-00001.json", "batch-00001.json"]
    assert not list(path.parent.glob("batch-*"))


def test_it_tells_how_far_it_is_before_the_first_batch_is_done(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = count(step=16.0)
    monkeypatch.setattr("tqdm.std.time", lambda: next(clock))
    written(recipe(model))
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("text that the model writes")]
    assert re.match(r"text that the model writes: \d+ of 1024 tokens, \d\d:\d\d gone, [\d:]+ left", lines[0])
    assert 0 < int(lines[0].split()[5]) < 512
    assert lines[-1].split()[5] == "1024"


def test_a_chat_model_writes_every_second_batch_as_a_chat(model: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(model)
    texts = written(recipe(model))
    chats = [text for text in texts if text.startswith("<s>user: ")]
    assert len(chats) == 32 and not any("<s>" in text for text in texts if text not in chats)


def test_a_template_that_fails_is_told(model: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('no user') }}"
    tokenizer.save_pretrained(model)
    with pytest.raises(KronpressError, match="the chat template of the tokenizer fails: 'no user'"):
        written(recipe(model))


def test_a_run_trains_on_it_beside_another_text(model: Path, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text(TEXT)
    mixed = recipe(model, train={"self": 1, str(tmp_path / "lines.txt"): 1})
    run = execute(mixed, tmp_path / "run")
    assert run.manifest().finished
    train = Texts.read(with_self_text(mixed)).train
    assert [text.corpus.name for text in train] == ["self (train)", f"{tmp_path / 'lines.txt'} (train)"]
    assert "self_text:" in run.recipe.to_yaml()


def test_an_encoder_does_not_write(tmp_path: Path) -> None:
    with pytest.raises(KronpressError, match="BertForMaskedLM does not write text; name a text"):
        with_self_text(recipe(save_tiny(tmp_path / "bert", tiny_bert())))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"held_out": "self"}, "would measure on what the model writes"),
        ({"train": "a.txt"}, "of no use without self in data.train"),
        ({"self_text": {"length": 2}}, "length"),
    ],
)
def test_settings_without_effect_are_refused(model: Path, data: dict[str, Any], message: str) -> None:
    with pytest.raises(KronpressError, match=message):
        recipe(model, **data)


def test_a_chat_must_have_room_for_an_answer(model: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "Be kind. " + TEMPLATE
    tokenizer.save_pretrained(model)
    with pytest.raises(KronpressError, match=r"begins with 16 tokens, and self_text\.length is 8"):
        written(recipe(model, self_text={"tokens": 1024, "length": 8}))
