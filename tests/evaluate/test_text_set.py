"""Sets of texts: what their files say is what is measured, and two models are compared on all of them."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from pathlib import Path

import pytest

from kronpress.data import Corpus, read_text, split_held_out
from kronpress.errors import KronpressError
from kronpress.evaluate import PROTOCOLS, Evaluate, TextSet
from kronpress.records import (
    Perplexity,
    SetPerplexity,
    TextSetComparison,
    TextSetScore,
    decode,
    encode,
    geometric_mean,
)
from kronpress.step import Workbench
from tests.tiny import TEXT, bench, factorized, tiny_bert, tiny_llama, tiny_tokenizer

SET = """
name: two kinds
texts:
  numbers: {source: sub/numbers.txt, windows: 2, protocol: tokens-32}
  end: {source: "sub/numbers.txt, other.txt", held_out: 0.1, protocol: tokens-16}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of a set, in another folder than the program's."""
    folder = tmp_path / "sets"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "numbers.txt").write_text(TEXT)
    (folder / "other.txt").write_text("another line\n" * 50)
    (folder / "set.yaml").write_text(SET)
    return folder / "set.yaml"


@pytest.fixture
def work(tmp_path: Path) -> Workbench:
    """A student with factors, beside its teacher."""
    model = tiny_llama(num_hidden_layers=1)
    made = bench(model, tmp_path / "step")
    return dataclasses.replace(made, student=factorized(model, tmp_path), measurements=tmp_path / "teacher.json")


def test_paths_start_from_the_file_and_parts_are_those_held_out(path: Path) -> None:
    numbers, end = TextSet.read(path).texts
    assert numbers.corpus == Corpus("numbers", TEXT)
    whole = read_text(f"{path.parent}/sub/numbers.txt, {path.parent}/other.txt")
    assert end.corpus.text == split_held_out(whole)[1].text
    assert (numbers.max_windows, end.max_windows) == (2, None)
    assert [text.protocols for text in (numbers, end)] == [(PROTOCOLS["tokens-32"],), (PROTOCOLS["tokens-16"],)]


def test_a_step_compares_both_models_on_each_text(path: Path, work: Workbench) -> None:
    step = Evaluate(stage="small", protocols=(), texts=str(path), precision="fp32")
    step.check(work)
    record = step.run(work)
    assert record.texts is not None and record.perplexity == ()
    assert (record.texts.name, [text.name for text in record.texts.texts]) == ("two kinds", ["numbers", "end"])
    numbers, end = record.texts.texts
    for model, measured in ((work.teacher, numbers.perplexity.dense), (work.student, numbers.perplexity.student)):
        alone = PROTOCOLS["tokens-32"].measure(model, tiny_tokenizer(), TEXT, name="", max_windows=2)
        assert measured.perplexity == pytest.approx(alone.perplexity)
        assert (measured.text, measured.windows, measured.protocol) == ("numbers", 2, "tokens-32")
    assert numbers.digest == hashlib.sha256(TEXT.encode()).hexdigest()[:12]
    assert record.texts.general == pytest.approx(math.sqrt(numbers.perplexity.ratio * end.perplexity.ratio))
    assert decode(type(record), encode(record), place="report.json", remedy="restore it") == record


def test_what_was_measured_under_another_name_is_not_measured_again(path: Path, work: Workbench) -> None:
    text = str(path.parent / "sub" / "numbers.txt")
    first = Evaluate(protocols=("tokens-32",), text=text, max_windows=2, precision="fp32").run(work)
    record = Evaluate(protocols=(), texts=str(path), precision="fp32").run(work)
    assert record.texts is not None
    again = record.texts.texts[0].perplexity.dense
    assert again == dataclasses.replace(first.perplexity[0].dense, text="numbers")


@pytest.mark.parametrize("change", [("windows: 2", "windows: 3"), ("0.1", "0.2"), ("tokens-16", "tokens-17")])
def test_a_change_of_the_set_is_noticed(change: tuple[str, str], path: Path) -> None:
    step = Evaluate(texts=str(path))
    before = step.sources()
    assert step.sources() == before and f"the set of texts '{path}'" in before
    path.write_text(SET.replace(*change))
    assert step.sources() != before


def test_a_change_of_a_text_is_noticed(path: Path) -> None:
    before = Evaluate(texts=str(path)).sources()
    (path.parent / "other.txt").write_text("another line\n" * 60)
    assert Evaluate(texts=str(path)).sources() != before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "must hold a mapping with the keys name, texts"),
        ("name: a", "text set set.yaml: the key 'texts' is missing"),
        ("texts: {a: {source: other.txt}}", "text set set.yaml: the key 'name' is missing"),
        ("{name: a, texts: {}}", "texts is {}; give each text as NAME"),
        ("{name: a, texts: [other.txt]}", "give each text as NAME: {source: …}"),
        ("{name: a, texts: {a: other.txt}}", "give each text as NAME: {source: …}"),
        ("{name: a, texts: {general: {source: other.txt}}}", "a text is called general"),
        ("{name: a, texts: {a: {sorce: other.txt}}}", "texts.a: .*did you mean 'source'"),
        ("{name: a, texts: {a: {source: other.txt, held_out: 1}}}", "held_out is 1: .*less than 1"),
        ("{name: a, texts: {a: {source: other.txt, windows: 0}}}", "windows is 0: "),
        ("{name: a, texts: {a: {source: other.txt, windows: true}}}", "windows is True: a number is needed"),
        ("{name: a, texts: {a: {source: other.txt, protocol: token-5}}}", "unknown perplexity protocol 'token-5'"),
        ("{name: a, texts: {a: {source: othr.txt}}}", "did you mean 'other.txt'"),
    ],
)
def test_a_bad_set_is_explained(content: str, message: str, path: Path) -> None:
    path.write_text(content)
    with pytest.raises(KronpressError, match=message.replace("{", r"\{").replace("[", r"\[")):
        TextSet.read(path)
    with pytest.raises(KronpressError, match="name the YAML file of a set of texts"):
        TextSet.read(path.parent / "none.yaml")


def test_models_that_do_not_suit_are_told_before_the_run(path: Path, tmp_path: Path) -> None:
    step = Evaluate(texts=str(path))
    with pytest.raises(KronpressError, match="sees at most 16; choose tokens-16"):
        step.check(bench(tiny_llama(max_position_embeddings=16), tmp_path))
    with pytest.raises(KronpressError, match="perplexity needs a causal language model"):
        step.check(bench(tiny_bert(), tmp_path))


def score(*perplexities: float) -> TextSetScore:
    texts = [Perplexity("tokens-512", "text", perplexity, 511, 1, 0.5) for perplexity in perplexities]
    return TextSetScore("set", tuple(SetPerplexity(str(n), "digest", text) for n, text in enumerate(texts)))


def test_general_is_the_geometric_mean_of_the_ratios() -> None:
    assert TextSetComparison.of(score(10, 20, 40), score(20, 20, 160)).general == pytest.approx(2)
    assert TextSetComparison.of(score(10, 20), score(math.inf, 20)).general == math.inf
    assert math.isnan(geometric_mean([math.nan, 1])) and geometric_mean([0.0, 1]) == 0
