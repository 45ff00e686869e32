"""The model card has front matter that parses and says how to load the model."""

from __future__ import annotations

import dataclasses
import html
import re
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt

from kronpress.checkpoint import save
from kronpress.quantize import Quantize
from kronpress.records import Score
from kronpress.report import RunSummary, model_card
from tests.report.examples import RECIPE, empty, full, task
from tests.tiny import bench, tiny_llama


def front_matter(card: str) -> dict[str, object]:
    start, text, body = card.split("---\n", 2)
    assert start == ""
    assert body.startswith("\n# ")
    fields = yaml.safe_load(text)
    assert isinstance(fields, dict)
    return fields


@pytest.mark.parametrize(("plain", "library"), [(True, "transformers"), (False, "kronpress")])
def test_front_matter_parses(plain: bool, library: str) -> None:
    fields = front_matter(model_card(full(), plain=plain))
    assert fields["library_name"] == library
    assert fields["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert fields["pipeline_tag"] == "text-generation"
    assert "kronpress" in fields["tags"]  # type: ignore[operator]


def test_only_a_compressed_checkpoint_needs_the_import() -> None:
    assert "\nimport kronpress" in model_card(full(), plain=False)
    assert "import kronpress" not in model_card(full(), plain=True)


@pytest.mark.parametrize("tag", ["text-generation", "feature-extraction"])
def test_the_snippet_of_a_model_in_few_bits_runs(tag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = bench(tiny_llama(), tmp_path)
    Quantize.model_validate({"weights": {"bits": 4, "group": 8}, "tables": 8}).run(work)
    card = model_card(dataclasses.replace(full(), pipeline_tag=tag), plain=False)
    save(work.student, tmp_path / "model", tokenizer=work.tokenizer, card=card)
    (code,) = re.findall("```python\n(.*?)```", (tmp_path / "model" / "README.md").read_text("utf-8"), re.DOTALL)
    assert code.startswith("import kronpress")
    found: dict[str, object] = {}
    exec(code.replace("path/to/this/folder", str(tmp_path / "model")), found)
    assert "Once upon a time" in capsys.readouterr().out if tag == "text-generation" else "outputs" in found


def test_a_local_path_is_no_base_model_of_the_hub() -> None:
    summary = dataclasses.replace(full(), base_model="/data/models/mine")
    assert "base_model" not in front_matter(model_card(summary, plain=False))


@pytest.mark.parametrize(
    ("tag", "auto"),
    [
        ("text-classification", "AutoModelForSequenceClassification"),
        ("feature-extraction", "AutoModel"),
    ],
)
def test_the_class_to_load_follows_the_pipeline(tag: str, auto: str) -> None:
    assert f"model = {auto}.from_pretrained" in model_card(dataclasses.replace(full(), pipeline_tag=tag), plain=True)


def test_numbers_stand_with_their_protocol() -> None:
    card = model_card(full(), plain=False)
    for expected in ("perplexity, wikitext-2 test, windows-512 | 30.1 | 40.3 | 1.34×", "| 134.5 M | 94.7 M |", RECIPE):
        assert expected in card


def test_scores_stand_with_what_they_mean() -> None:
    card = model_card(full(), plain=False)
    scores = "| student | 84.20 ± 0.60 | 65.10 ± 1.25 | 56.34 ± 0.00 | 68.55 | 74.65 | 57.0 M | 114.0 M | 97.92 |\n"
    for expected in (
        scores,
        "the checkpoint itself is not fine-tuned",
        "mrpc: mean of f1 and accuracy",
        "| 50.50 ± 0.25 |",
    ):
        assert expected in card
    assert "## Scores on tasks" not in model_card(dataclasses.replace(full(), tasks=()), plain=False)


def test_a_name_can_not_end_its_cell() -> None:
    card = model_card(dataclasses.replace(empty(), tasks=[task("rte", {"a|<b>\n": Score(60)})]), plain=False)
    assert "\n| a\\|&lt;b> | 60.00 |" in card


HOSTILE = [
    "![a](https://example.org/a.png)",
    "[click](javascript:alert(1))",
    "[a]: javascript:alert(1)",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<javascript:alert(1)>",
    "&lt;b&gt; &#60;",
    "`code` ``more``",
    "**bold** __bold__ *a* _a_ snake_case __init__",
    "~~gone~~ $x^2$",
    "a | b",
    "a\\",
    "\\[a](b)",
    "---\nlicense: mit\n---",
    "# heading",
    "## heading",
    "- item",
    "[ ] to do",
    "+ item",
    "1. item",
    "2) item",
    "> quote",
    "=== rule",
    "```\ncode\n```",
    "\u202egnp.exe",
]


def rendered(summary: RunSummary) -> str:
    """The body of the card as HTML, raw HTML and tables included."""
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(front_and_body(summary)[1])


def front_and_body(summary: RunSummary) -> tuple[dict[str, object], str]:
    card = model_card(summary, plain=False)
    return front_matter(card), card.split("---\n", 2)[2]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_user_wrote_is_shown_as_it_is(text: str) -> None:
    def card_of(text: str) -> RunSummary:
        row = dataclasses.replace(full().perplexity[0], stage=text, text=text)
        names = {"description": text, "title": text, "base_model": text, "notes": [text]}
        return dataclasses.replace(full(), **names, perplexity=[row], tasks=[task("rte", {text: Score(60)})])

    wanted = " ".join(text.replace("\u202e", " ").split())
    page, harmless = rendered(card_of(text)), rendered(card_of("words, and spaces"))
    assert front_and_body(card_of(text))[0].keys() == {"library_name", "tags", "pipeline_tag"}
    assert re.findall(r"</?\w+", page) == re.findall(r"</?\w+", harmless)
    texts = [html.unescape(shown) for shown in re.findall(r"<(?:h1|p|li|td)[^>]*>([^<]*)<", page)]
    assert texts[:2] == [wanted, f"Made from {wanted} with kronpress. {wanted}"]
    assert texts.count(wanted) == 1 + 2 + 1 + 1  # title, stage and text, model, note


@pytest.mark.parametrize("summary", [full(), empty()])
def test_every_table_row_has_as_many_cells_as_its_head(summary: RunSummary) -> None:
    noted = dataclasses.replace(
        summary, perplexity=[dataclasses.replace(row, stage="a|b\nc") for row in summary.perplexity]
    )
    tables = [block for block in model_card(noted, plain=False).split("\n\n") if block.startswith("|")]
    assert bool(tables) == bool(summary.perplexity)
    for table in tables:
        assert len({line.replace("\\|", "").count("|") for line in table.strip().splitlines()}) == 1


def test_a_recipe_with_fences_stays_in_its_block() -> None:
    card = model_card(dataclasses.replace(full(), recipe_yaml="# ```\nmodel: x"), plain=False)
    assert "````yaml\n# ```\nmodel: x\n````" in card
