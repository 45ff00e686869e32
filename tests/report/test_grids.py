"""Reports say in how many bits numbers are stored, what that takes and what it costs, in every form."""

from __future__ import annotations

import dataclasses
import re

import pytest

from kronpress.records import InputRange
from kronpress.report import RunSummary, model_card, render
from kronpress.report.grids import all_ranges, part_rows, role_rows, stage_lines
from kronpress.report.rows import footprint_rows
from kronpress.report.scores import score_tables
from tests.report.examples import empty, footprint, full, quantized, ranges, staged, task
from tests.report.test_terminal import cells, printed


def in_few_bits(**fields: object) -> RunSummary:
    return dataclasses.replace(empty(), quantized=[quantized(1, bits=8), quantized(3)], tasks=[staged()], **fields)


def test_roles_stand_with_bits_bytes_and_mean_errors() -> None:
    assert role_rows(quantized().record) == [
        ("embedding", "1", "8.25", "3.9 KiB", "1000 B", "0.00400", "–"),
        ("up", "3", "4.25", "2.9 KiB", "600 B", "0.110", "0.0500"),
        ("down", "3", "4.25", "2.9 KiB", "600 B", "0.210", "0.100"),
    ]


def test_parts_are_those_before_the_first_step_and_after_the_last() -> None:
    assert part_rows(in_few_bits()) == [
        ("weights", "5.9 KiB", "1.2 KiB", "−80.0 %"),
        ("tables", "3.9 KiB", "1000 B", "−75.0 %"),
        ("other", "300 B", "300 B", "0 %"),
        ("all", "10.1 KiB", "2.4 KiB", "−75.7 %"),
    ]
    assert part_rows(empty()) == []


def test_a_record_of_an_earlier_version_has_no_bytes_before() -> None:
    summary = dataclasses.replace(empty(), quantized=[quantized(before=False)])
    assert part_rows(summary)[-1] == ("all", "–", "2.4 KiB", "–")
    assert list(stage_lines(summary)) == ["step 2: all tensors: 2.4 KiB"]
    for text in (render(summary), model_card(summary, plain=False), printed(summary)):
        assert "2.4 KiB" in text


def test_each_stage_has_a_line() -> None:
    scales = "a scale for every"
    assert list(stage_lines(in_few_bits())) == [
        *(
            f"step {number}: weights: {bits} bits (mse, {scales} 64 numbers); tables: 8 bits (mse, {scales} row); "
            "inputs of layers: as they were; all tensors: 2.4 KiB, before 10.1 KiB (4.12× as much)"
            for number, bits in ((1, 8), (3, 4))
        ),
        "rte, 4-32: 4–4–32 bits of weights, tables, inputs; score 64.00, the teacher 70.00; 6.7 MiB on disk",
        "rte, 2-8: 2–2–8 bits of weights, tables, inputs; score 61.00 ± 0.50, the teacher 70.00; 3.4 MiB on disk",
    ]


def test_the_terminal_shows_the_lines_and_the_roles_of_each_step() -> None:
    text = printed(in_few_bits(), width=250)
    for line in stage_lines(in_few_bits()):
        assert f"• {line}\n" in text
    assert [text.count(f"Numbers on grids, step {number}") for number in (1, 2, 3)] == [1, 0, 1]
    assert cells(text, "up") == ["3", "8.25", "2.9 KiB", "600 B", "0.110", "0.0500"]


def test_the_footprint_tells_bits_of_the_file_where_numbers_lie_on_grids() -> None:
    sizes = {"footprint_before": footprint(1.0), "footprint_after": footprint(1.0)}
    row = ("bits on disk, each parameter", "16.0 bits", "16.0 bits", "0 %")
    assert row in footprint_rows(in_few_bits(**sizes))
    assert row not in footprint_rows(dataclasses.replace(empty(), **sizes))


def test_scores_stand_with_files_and_bits_where_there_are_stages() -> None:
    grid = score_tables([staged()])[0]
    sizes = ("size on disk", "bits of weights, tables, inputs")
    assert grid.head == ("model", "rte", "parameters", "FLOPs per token", *sizes, "% of teacher's score")
    assert [row[4:6] for row in grid.rows] == [
        ("–", "–"),
        ("54.4 MiB", "–"),
        ("6.7 MiB", "4–4–32"),
        ("3.4 MiB", "2–2–8"),
    ]
    assert "The size on disk is that of the saved model" in grid.caption
    selected = dataclasses.replace(staged(), selected_on="train")
    assert score_tables([selected])[1].head == ("model", "rte", "% of teacher's score")
    unsaved = score_tables([task("rte", {"teacher": staged().models[0].score})])[0]
    assert not set(sizes) & set(unsaved.head)


def test_ranges_are_those_of_steps_and_of_the_last_stage_of_each_task() -> None:
    step = quantized(4)
    rounded = dataclasses.replace(step, record=dataclasses.replace(step.record, inputs=ranges()))
    found = all_ranges(dataclasses.replace(in_few_bits(), quantized=[quantized(), rounded]))
    assert [(some.label, len(some.inputs)) for some in found] == [("step 4", 7), ("rte, 2-8", 7)]
    assert all_ranges(full()) == []


@pytest.mark.parametrize(
    ("scale", "shift", "reach"), [(0.5, None, (-4.0, 3.5)), (-0.5, 1.0, (-2.5, 5.0)), (None, None, None)]
)
def test_a_range_reaches_from_level_to_level(
    scale: float | None, shift: float | None, reach: tuple[float, float] | None
) -> None:
    assert InputRange("up", "up", 0, "int4", (-8, 7), scale, shift).reach == reach


def test_the_page_shows_all_of_it() -> None:
    page = render(in_few_bits())
    assert "Numbers on grids" in page and "Ranges of rounded inputs" in page
    worst = re.findall(r'<td class="path">(layer[^<]*)</td>', page)
    assert worst[:3] == ["layer.2.down", "layer.1.down", "layer.0.down"]
    ids = re.findall(r'id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert {"bytes-figure_1", "grids-1-figure_1", "grids-3-figure_1", "score-bytes-figure_1", "inputs-0-figure_1"} <= {
        *ids
    }


def test_the_card_says_bits_and_bytes_in_words() -> None:
    card = model_card(in_few_bits(), plain=False).split("## Numbers on grids")[1].split("\n## ")[0]
    for expected in (
        "the file holds their codes and scales",
        "Weights: 4 bits (mse, a scale for every 64 numbers); tables: 8 bits",
        "take 2.4 KiB, before 10.1 KiB (4.12× as much).",
        "| all | 10.1 KiB | 2.4 KiB | −75.7 % |",
        "| down | 3 | 4.25 |",
        "- step 1: weights: 8 bits",
    ):
        assert expected in card
    assert "Numbers on grids" not in model_card(empty(), plain=False)
