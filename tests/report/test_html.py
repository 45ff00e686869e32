"""The page is well-formed, self-contained, escaped, and shows exactly what it was given."""

from __future__ import annotations

import dataclasses
import math
import re
from html import escape, unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from kronpress.records import Sample, Score
from kronpress.report import PerplexityRow, RunSummary, render, write_report
from tests.report.examples import empty, full, task

VOID = {"meta", "link", "br", "img", "hr", "input"}
LOADING = {"src", "href", "srcset", "data", "action", "poster", "xlink:href"}
SECTIONS = {
    "Perplexity": {"perplexity": ()},
    "Tasks": {"tasks": ()},
    "Footprint": {"footprint_before": None, "footprint_after": None},
    "Speed": {"speed": ()},
    "Training": {"training": (), "validation": ()},
    "What replacing the layers changed": {"layers": ()},
    "Numbers on grids": {"quantized": ()},
    "Samples": {"samples": ()},
    "Notes": {"notes": ()},
    "Time": {"steps": ()},
    "Recipe": {"recipe_yaml": ""},
    "Environment": {"environment": {}},
}


class Page(HTMLParser):
    """A strict reader: every tag is closed in order; collects ids, references, headings and texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.references: list[str] = []
        self.headings: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.references += [value or "" for name, value in attrs if name in LOADING]
        assert not [name for name, _ in attrs if name.startswith("on")], "an event handler"

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"{tag} was never opened"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


@pytest.fixture(scope="module")
def page() -> str:
    return render(full())


def test_the_reader_notices_a_tag_left_open() -> None:
    with pytest.raises(AssertionError, match="never closed"):
        Page("<p><b></b>")


def test_all_sections_appear_in_a_well_formed_page(page: str) -> None:
    assert set(Page(page).headings) == set(SECTIONS)


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_vanishes_with_its_data(name: str) -> None:
    summary = dataclasses.replace(full(), **SECTIONS[name])
    assert set(Page(render(summary)).headings) == set(SECTIONS) - {name}


def test_an_empty_run_still_gives_a_page() -> None:
    assert not Page(render(empty())).headings


def test_nothing_is_loaded_from_elsewhere(page: str) -> None:
    read = Page(page)
    assert not read.tags & {"script", "link", "img", "iframe", "object", "embed"}
    assert all(reference.startswith("#") for reference in read.references)
    without_names = page.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"https?:|@import|url\((?!#)", without_names)


def test_ids_are_unique_and_references_resolve(page: str) -> None:
    read = Page(page)
    assert len(read.ids) == len(set(read.ids))
    assert {reference[1:] for reference in read.references} <= set(read.ids)
    assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(read.ids)


def test_everything_is_escaped() -> None:
    evil = "<script>alert('x')</script>&$title"
    plain = full()
    summary = dataclasses.replace(
        plain,
        title=evil,
        description=evil,
        base_model=evil,
        created=evil,
        recipe_yaml=evil,
        notes=[evil],
        environment={evil: evil},
        samples=[Sample(evil, evil, evil)],
        steps=[dataclasses.replace(plain.steps[0], name=evil)],
        speed=[dataclasses.replace(plain.speed[0], phase=evil)],
        layers=[dataclasses.replace(layer, path=evil, role=evil) for layer in plain.layers],
        perplexity=[dataclasses.replace(row, stage=evil, text=evil, protocol=evil) for row in plain.perplexity],
        tasks=[task(evil, {"teacher": Score(90), evil: Score(80)}, hans={evil: Score(50)})],
    )
    text = render(summary)
    assert "script" not in Page(text).tags
    assert text.count("&lt;script&gt;") > 20
    for cell in (f"<td>{escape(evil)}</td>", f">{escape(evil)} → hans: accuracy</th>"):
        assert cell in text
    assert "&amp;$title" in text


@pytest.mark.parametrize(
    "text", ['id="a"', '="1.23456"', "#1c2433", "xlink:href", 'href="#b"', "<style>", "<!-- a", "a>  <b"]
)
def test_what_looks_like_markup_is_shown_in_plots(text: str) -> None:
    row = dataclasses.replace(full().perplexity[0], stage=text)
    page = render(dataclasses.replace(empty(), perplexity=[row]))
    assert text in [unescape(shown).strip() for shown in re.findall(r"<text[^>]*>([^<]*)</text>", page)]


def test_values_are_shown_with_their_protocol(page: str) -> None:
    for expected in ("94.7 M", "180.6 MiB", "1.34×", "1.30×", "windows-512", "30.1 → 40.3", "10 min 10 s", "−29.6 %"):
        assert expected in page


def row(head: str, *cells: str) -> str:
    return f"<tr><td>{head}</td>" + "".join(f'<td class="number">{cell}</td>' for cell in cells) + "</tr>"


def test_scores_of_many_columns_stand_with_a_row_for_each_task(page: str) -> None:
    assert row("rte", "70.00 ± 2.00", "65.10 ± 1.25", "60.00 ± 0.50") in page
    assert row("average without WNLI", "80.00", "74.65", "70.00") in page
    for expected in ("the scores are optimistic. Mean ± standard deviation over 3 seeds.", "rte → hans", "97.92 %"):
        assert expected in page


def test_scores_of_few_columns_stand_with_a_row_for_each_model() -> None:
    page = render(dataclasses.replace(empty(), tasks=full().tasks[:1]))
    assert row("student", "84.20 ± 0.60", "57.0 M", "114.0 M", "93.56") in page


@pytest.mark.parametrize(("deviation", "told"), [(None, False), (0.5, True)])
def test_lines_in_the_plot_are_told_of_where_there_are_any(deviation: float | None, told: bool) -> None:
    page = render(dataclasses.replace(empty(), tasks=[task("rte", {"teacher": Score(60, deviation)})]))
    assert ("Higher is better; the lines" in page) == told


def test_the_recipe_stands_verbatim(page: str) -> None:
    assert f"<pre>{full().recipe_yaml.strip()}</pre>" in page


def test_numbers_that_are_not_finite_are_named_not_drawn() -> None:
    rows = [PerplexityRow("dense", "p", "t", 30.0, 1.0), PerplexityRow("broken", "p", "t", math.inf, math.inf)]
    points = [dataclasses.replace(point, loss=math.nan) for point in full().training]
    text = render(dataclasses.replace(full(), perplexity=rows, training=points, validation=()))
    Page(text)
    assert "not finite" in text


def test_rendering_is_deterministic(page: str) -> None:
    assert render(full()) == page


def test_a_summary_survives_json(page: str) -> None:
    adapter = TypeAdapter(RunSummary)
    assert render(adapter.validate_json(adapter.dump_json(full()))) == page


def test_writing_replaces_the_old_report_and_leaves_no_draft(tmp_path: Path) -> None:
    target = tmp_path / "run" / "report.html"
    write_report(target, summary=empty())
    assert write_report(target, summary=full()) == target
    assert target.read_text(encoding="utf-8") == render(full())
    assert list(target.parent.iterdir()) == [target]


def test_a_failed_write_keeps_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = write_report(tmp_path / "report.html", summary=empty())
    old = target.read_text(encoding="utf-8")

    def refuse(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        write_report(target, summary=full())
    assert target.read_text(encoding="utf-8") == old
    assert list(tmp_path.iterdir()) == [target]
