"""What a run trains on and measures on: a text, or several by their weights."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from kronpress.data import Corpus, read_text, split_held_out, tokenize, windows
from kronpress.distill import Distill
from kronpress.errors import KronpressError
from kronpress.run import Recipe, TextSource, execute, read_recipe
from kronpress.run.inputs import Texts
from tests.tiny import bench, save_tiny, tiny_llama, tiny_tokenizer


@pytest.fixture
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three texts of other lengths, each of its own words."""
    monkeypatch.chdir(tmp_path)
    for name, count in (("apple", 900), ("bread", 400), ("cheese", 200)):
        lines = [f"the {number}th {name} is better than the {number - 1}th" for number in range(count)]
        Path(f"{name}.txt").write_text("\n".join(lines) + "\n")


def opened(**fields: Any) -> tuple[Corpus, Corpus]:
    return Texts.read(TextSource(**fields)).mixed(tiny_tokenizer())


def recipe(*overrides: str, steps: tuple[dict[str, Any], ...] = ({"step": "evaluate"},)) -> Recipe:
    Path("recipe.yaml").write_text("steps: [{step: evaluate}]")
    return read_recipe("recipe.yaml", overrides=overrides, fields={"steps": list(steps)})


@pytest.mark.usefixtures("texts")
def test_one_text_is_read_as_it_is(tmp_path: Path) -> None:
    train, held_out = opened(train="apple.txt")
    assert (train, held_out) == split_held_out(read_text("apple.txt"))
    work = dataclasses.replace(bench(tiny_llama(), tmp_path), train=train)
    expected = windows(tokenize(train.text, tiny_tokenizer()), size=32)
    assert torch.equal(work.drawn_windows(size=32, drawn=64), expected), "a step draws from all of it"
    far = expected[: 64 * 2]
    assert torch.equal(work.training_windows(size=32, tokens=64), far[[0, len(far) // 2]]), "apart, not the beginning"
    assert opened(train={"apple.txt": 3}) == (train, held_out)


@pytest.mark.usefixtures("texts")
def test_the_last_tenth_of_each_text_is_held_out() -> None:
    train, held_out = opened(train={"apple.txt": 1, "dairy": {"source": "cheese.txt", "weight": 2}})
    parts = [split_held_out(read_text(f"{name}.txt")) for name in ("apple", "cheese")]
    for corpus, halves in ((train, [half for half, _ in parts]), (held_out, [half for _, half in parts])):
        lines = [line for half in halves for line in half.text.splitlines()]
        assert sorted(line for line in corpus.text.splitlines() if line) == sorted(lines)
    assert train.name == "apple.txt (train) × 1 + dairy (train) × 2"
    assert held_out.name == "apple.txt (held out) × 1 + dairy (held out) × 2"


@pytest.mark.usefixtures("texts")
def test_a_held_out_text_may_be_several_and_none_of_them_is_trained_on() -> None:
    _, held_out = opened(train="apple.txt", held_out={"bread.txt": 1, "cheese.txt": 1})
    assert "bread" in held_out.text and "cheese" in held_out.text
    with pytest.raises(KronpressError, match=r"the held-out text 'cheese\.txt' is the training text 'cheese\.txt'"):
        opened(train={"apple.txt": 1, "cheese.txt": 1}, held_out="cheese.txt")
    Path("copy.txt").write_text(Path("apple.txt").read_text())
    with pytest.raises(KronpressError, match=r"'apple\.txt' and 'copy\.txt' are the same"):
        opened(train={"apple.txt": 1, "copy.txt": 1})


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("{}", "data.train is {}; name a text, or several with weights"),
        ("[a.txt]", "data.train is ['a.txt']; name a text"),
        ("3", "data.train is 3; name a text"),
        ("", "data.train is None; name a text"),
        ("{a: 0}", "data.train, 'a': weight is 0: .*greater than or equal to 0.000001"),
        ("{a: -1}", "data.train, 'a': weight is -1: "),
        ("{a: .inf}", "data.train, 'a': weight is inf: .*finite"),
        ("{a: .nan}", "data.train, 'a': weight is nan: "),
        ("{a: true}", "weight is True: a number is needed"),
        ("{a: much}", "weight is 'much': "),
        ("{a: }", "weight is None: "),
        ("{a: {wieght: 1}}", "did you mean 'weight'"),
        ("{a: 1, a: 2}", "the key 'a' is given twice"),
        ("{a: 1, b: {source: a}}", "data.train names 'a' twice, as 'a' and 'b'; give it one weight"),
    ],
)
def test_bad_weights_are_refused(train: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KronpressError, match=message.replace("[", r"\[").replace("{", r"\{")) as caught:
        recipe(f"data.train={train}")
    assert len(str(caught.value)) < 300


@pytest.mark.usefixtures("texts")
def test_a_recipe_reads_and_writes_its_weights() -> None:
    first = recipe("data.train={apple.txt: 1, dairy: {source: cheese.txt}}", "data.train.dairy.weight=0.5")
    assert isinstance(first.data.train, dict)
    assert [(share.source, share.weight) for share in first.data.train.values()] == [
        ("apple.txt", 1),
        ("cheese.txt", 0.5),
    ]
    Path("again.yaml").write_text(first.to_yaml())
    assert read_recipe("again.yaml") == first
    assert "train: bundled:python-reference\n" in recipe().to_yaml(), "one text is written as it always was"


@pytest.mark.usefixtures("texts")
def test_steps_read_a_mixture_where_it_keeps_its_shares(tmp_path: Path) -> None:
    train, _ = opened(train={"apple.txt": 1, "cheese.txt": 1})
    assert train.shares is not None
    work = dataclasses.replace(bench(tiny_llama(), tmp_path), train=train)
    fair = windows(tokenize(train.text, tiny_tokenizer(), limit=train.shares.tokens), size=32)
    assert torch.equal(work.drawn_windows(size=32, drawn=640), fair)
    assert torch.equal(work.training_windows(size=32, tokens=640), fair[torch.arange(20) * len(fair) // 20])
    assert work.notes == []
    step = Distill(tokens=2048, window=32, losses={"cross_entropy": 1})
    assert step.run(work).tokens == 2048 and work.notes == []
    work.drawn_windows(size=32, drawn=2 * train.shares.tokens)
    work.training_ids()
    assert ["read; the other texts fill up" in note and "cheese.txt (train) ends" in note for note in work.notes] == [
        True,
        True,
    ]


@pytest.mark.usefixtures("texts")
def test_a_run_on_several_texts_resumes_and_notes_where_shares_end(tmp_path: Path) -> None:
    save_tiny(tmp_path / "model", tiny_llama(num_hidden_layers=1))
    calibrated = {"step": "prune", "fit": {"tokens": 100_000, "window": 32}}
    changes = [f"model={tmp_path / 'model'}", "data.train={apple.txt: 2, bread.txt: 1, cheese.txt: 1}"]
    run = execute(recipe(*changes, steps=(calibrated,)), tmp_path / "run")
    notes = json.loads(run.manifest_path.read_text())["notes"]
    assert len(notes) == 1 and "keeps its shares for about" in notes[0] and "100,000" in notes[0]
    assert notes[0] in run.summary().notes
    execute(recipe(*changes, steps=(calibrated,)), tmp_path / "run", resume=True)
    other = [changes[0], "data.train={apple.txt: 1, bread.txt: 1, cheese.txt: 1}"]
    with pytest.raises(KronpressError, match="another recipe"):
        execute(recipe(*other, steps=(calibrated,)), tmp_path / "run", resume=True)


@pytest.mark.usefixtures("texts")
def test_a_run_on_large_texts_comes_to_the_same(
    tmp_path: Path, large_texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_tiny(tmp_path / "model", tiny_llama(num_hidden_layers=1))
    trained = {"step": "distill", "tokens": 2048, "window": 32, "batch": 4, "losses": {"cross_entropy": 1}}
    steps = (trained | {"validate_every": 8}, {"step": "evaluate"}, {"step": "evaluate", "max_windows": 3})
    source = "data.train={apple.txt: 2, bread.txt: 1}"
    begun = recipe(f"model={tmp_path / 'model'}", source, steps=steps)
    large = execute(begun, tmp_path / "large")
    assert len(list(large_texts.glob("tokens/*/00000.ids"))) == 2, "of the training text, and of the held-out one"
    (tmp_path / "apple.txt").write_text(Path("apple.txt").read_text())  # as new as now
    assert execute(begun, tmp_path / "large", resume=True).folder == large.folder
    monkeypatch.delenv("KRONPRESS_CACHE")
    monkeypatch.setattr("kronpress.data.corpus.IN_MEMORY", 10**6)
    small = execute(begun, tmp_path / "small")
    assert small.manifest().data == large.manifest().data
    for index in range(3):
        first, second = (
            json.loads(next(run.folder.glob(f"steps/0{index}-*/report.json")).read_text())["record"]
            for run in (small, large)
        )
        assert without_clock(first) == without_clock(second)


def without_clock(value: Any) -> Any:
    """The values of a report but for those that depend on the clock and on what ran before."""
    if isinstance(value, dict):
        clock = ("seconds", "tokens_per_second", "peak_rss_bytes")
        return {key: without_clock(part) for key, part in value.items() if key not in clock}
    return [without_clock(part) for part in value] if isinstance(value, list) else value
