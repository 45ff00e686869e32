"""What `kronpress evaluate` measures, prints and writes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from kronpress.cli.work import evaluate
from kronpress.evaluate import PROTOCOLS
from kronpress.records import Footprint, ModelEvaluation, Perplexity
from tests.cli.test_bad_input import TEXT, assert_explained, call
from tests.tiny import save_tiny, tiny_bert, tiny_llama


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint, and beside it a text, two passages of LAMBADA and a task of lm-eval."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "text.txt").write_text(TEXT)
    (tmp_path / "lambada.jsonl").write_text('{"text": "the cat and the cat"}\n{"text": "a dog, and one dog"}\n')
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "data.jsonl").write_text(
        '{"ask": "one", "answer": 0}\n{"ask": "two", "answer": 1}\n{"ask": "three", "answer": 1}\n'
    )
    (tmp_path / "tasks" / "task.yaml").write_text(
        f"""task: kronpress_choose
dataset_path: json
dataset_kwargs: {{data_files: {{test: {tmp_path}/tasks/data.jsonl}}, cache_dir: {tmp_path}/cache}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{ask}}}}"
doc_to_choice: ["x", "y"]
doc_to_target: answer
metric_list: [{{metric: acc}}]
"""
    )
    return save_tiny(tmp_path / "model", tiny_llama(max_position_embeddings=512))


def test_the_help_explains_every_protocol(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert call(monkeypatch, "evaluate", "--help") == 0
    _, listed = capsys.readouterr().out.split("Protocols of perplexity:")
    paragraphs = ["".join(paragraph.split()) for paragraph in listed.split("\n\n") if paragraph.strip()]
    expected = [f"{name}: {protocol.summary}." for name, protocol in PROTOCOLS.items()]
    expected.append("tokens-N: as tokens-512, with windows of any number N of tokens from 2 on.")
    assert paragraphs == ["".join(line.split()) for line in expected], "the help lists what the protocols say"


def test_windows_fit_the_model_with_the_fewest_positions(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = save_tiny(model.parent / "short", tiny_llama(max_position_embeddings=48))
    options = ["--data", "text.txt", "--against", other, "--json", "out.json", "--max-windows", "1", "--speed"]
    assert call(monkeypatch, "evaluate", model, *options) == 0
    results = json.loads(Path("out.json").read_text())
    assert [results[str(name)]["perplexity"][0]["protocol"] for name in (model, other)] == ["tokens-48"] * 2
    assert (results["speed"]["prompt_tokens"], results["speed"]["new_tokens"]) == (24, 24)
    assert call(monkeypatch, "evaluate", other, "--data", "text.txt", "--protocol", "tokens-40") == 0


def test_lambada_alone_and_beside_a_text(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "evaluate", model, "--lambada", "lambada.jsonl", "--json", "out.json") == 0
    result = json.loads(Path("out.json").read_text())[str(model)]
    assert result.keys() == {"footprint", "precision", "lambada"}
    assert result["lambada"]["passages"] == 2
    printed = capsys.readouterr().out
    assert f"{result['lambada']['perplexity']:.3e}" in printed  # of random weights
    assert "accuracy, %" in printed
    beside = ["--lambada", "lambada.jsonl", "--limit", 1, "--data", "text.txt", "--max-windows", 1]
    assert call(monkeypatch, "evaluate", model, *beside, "--json", "out.json") == 0
    result = json.loads(Path("out.json").read_text())[str(model)]
    assert (result["perplexity"][0]["protocol"], result["lambada"]["passages"]) == ("tokens-512", 1)


@pytest.mark.usefixtures("no_shipped_tasks")
def test_tasks_of_the_harness_side_by_side(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = save_tiny(model.parent / "other", tiny_llama(seed=1))
    options = ["--against", other, "--lm-eval", "kronpress_choose", "--lm-eval-include", "tasks", "--limit", 2]
    assert call(monkeypatch, "evaluate", model, *options, "--json", "out.json") == 0
    results = json.loads(Path("out.json").read_text())
    assert results.keys() == {str(model), str(other)}
    for result in results.values():
        (row,) = result["lm_eval"]
        assert (row["task"], row["metric"], row["examples"]) == ("kronpress_choose", "acc", 2)
        assert row["value"] in (0.0, 0.5, 1.0)
    assert "kronpress_choose" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lm-eval-include", "tasks"], "--lm-eval-include holds tasks for --lm-eval"),
        (["--lm-eval", "piqa", "--lm-eval-include", "nowhere"], "there is no folder 'nowhere'"),
        (["--lm-eval", ","], "no task is named"),
        (["--lambada", "nowhere.jsonl"], "'nowhere.jsonl' can not be read"),
        (["--protocol", "ptb", "--data", "text.txt"], "no '<unk>' in it"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_explained(
    arguments: list[str],
    message: str,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if "ptb" in arguments:
        save_tiny(model, tiny_llama(max_position_embeddings=1024))
    assert call(monkeypatch, "evaluate", model, *arguments) == 1
    assert_explained(capsys, message)


def test_both_models_are_opened_before_either_is_measured(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(evaluate, "footprint", lambda *_, **__: pytest.fail("measured"))
    assert call(monkeypatch, "evaluate", "modle", "--against", model, "--data", "text.txt") == 1
    assert_explained(capsys, "there is no folder 'modle'")
    encoder = save_tiny(model.parent / "encoder", tiny_bert())
    assert call(monkeypatch, "evaluate", encoder, "--against", model, "--data", "text.txt") == 1
    assert_explained(capsys, "needs a causal language model")


def test_names_and_numbers_are_whole_in_a_narrow_terminal(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    size = Footprint(134515008, 0, 0, 0, 0, None, 0, 0)
    rows = [("wikitext-v1", 23.45678), ("wikitext-v1-word", 3.2e12)]
    perplexity = tuple(Perplexity(name, "wikitext-2-test.txt", value, 0, 0, 0.0) for name, value in rows)
    names = ("bundled:smollm2-135m", "runs/demo/checkpoint")
    evaluate._print_results({name: ModelEvaluation("fp32", perplexity, footprint=size) for name in names})
    printed = capsys.readouterr().out
    assert "…" not in printed and printed.count("134,515,008") == 4
    assert printed.count("23.457") == 2 and printed.count("3.200e+12") == 2 and printed.count("1.000×") == 4
    cells = [[cell.strip() for cell in line.split("│")[1:4]] for line in printed.splitlines() if "│" in line]
    whole = "".join("".join(column) for column in zip(*cells, strict=True))
    assert all(each in whole for each in (*names, "wikitext-v1-word", "wikitext-2-test.txt"))


def test_perplexity_per_word(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_tiny(model, tiny_llama(max_position_embeddings=1024))
    options = ["--protocol", "wikitext-word", "--data", "text.txt", "--max-windows", 1, "--json", "out.json"]
    assert call(monkeypatch, "evaluate", model, *options) == 0
    (row,) = json.loads(Path("out.json").read_text())[str(model)]["perplexity"]
    assert row["words"] == len(re.split(r"\s+", TEXT))
    assert row["tokens_per_word"] > 1
