"""Every form of report shows sets of texts, with digests and the geometric mean."""

from __future__ import annotations

import dataclasses
import io

import pytest
from rich.console import Console

from kronpress.records import Perplexity, SetPerplexity, TextSetComparison, TextSetScore
from kronpress.report import RunSummary, TextSetRow, model_card, print_summary, render
from tests.report.examples import empty, full


def score(*perplexities: float) -> TextSetScore:
    names = ("news", "speech")
    texts = [Perplexity("tokens-512", "text", perplexity, 511, 1, 0.5) for perplexity in perplexities]
    return TextSetScore(
        "kinds", tuple(SetPerplexity(name, f"{name}0123", text) for name, text in zip(names, texts, strict=True))
    )


def printed(summary: RunSummary) -> str:
    target = io.StringIO()
    print_summary(summary, console=Console(file=target, width=160))
    return target.getvalue()


FORMS = {"terminal": printed, "page": render, "card": lambda summary: model_card(summary, plain=True)}


@pytest.mark.parametrize("form", FORMS)
def test_the_set_is_shown(form: str) -> None:
    row = TextSetRow("pruned", TextSetComparison.of(score(10, 20), score(20, 40.5)))
    shown = FORMS[form](dataclasses.replace(full(), texts=[row]))
    for cell in ("Kinds of text", "news0123", "speech0123", "tokens-512", "2.02×", "40.5", "general", "2.01×"):
        assert cell in shown, cell


@pytest.mark.parametrize("form", FORMS)
def test_without_a_set_nothing_is_shown(form: str) -> None:
    assert "Kinds of text" not in FORMS[form](full()) + FORMS[form](empty())
