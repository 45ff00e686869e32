"""Plots about bits: bytes by part, scores over the bytes of files, ranges of inputs."""

from __future__ import annotations

import dataclasses

import pytest

from kronpress.records import Score
from kronpress.report import grid_plots
from tests.report.examples import quantized, ranges, staged, task


def bars(svg: str, color: str) -> int:
    return svg.count(f"fill: var(--{color}, ")


def lines(svg: str, color: str) -> int:
    return svg.count(f"stroke: var(--{color}, ")


def test_each_state_is_a_bar_of_three_parts() -> None:
    svg = grid_plots.byte_bars([quantized(1), quantized(3)])
    assert [bars(svg, f"series-{index}") for index in range(3)] == [3, 3, 3]
    assert [svg.count(f">{text}<") for text in ("before", "after step 1", "after step 3", "weights")] == [1, 1, 1, 1]
    assert (svg.count(">10.1 KiB<"), svg.count(">2.4 KiB<")) == (1, 2)
    assert ">before<" not in grid_plots.byte_bars([quantized(1, before=False)])
    assert grid_plots.byte_bars([]) == ""


def test_every_saved_model_has_a_labeled_point() -> None:
    svg = grid_plots.scores_by_bytes([staged(), dataclasses.replace(staged(), task="cola")])
    assert [svg.count(f">{name}<") for name in ("rte", "cola", "student", "4-32", "2-8")] == [1, 1, 2, 2, 2]
    assert ">teacher<" not in svg, "it was not saved"
    assert ">4 MiB<" in svg


def test_names_of_points_are_text() -> None:
    named = dataclasses.replace(staged().models[2], model="$a$ <b>")
    svg = grid_plots.scores_by_bytes([dataclasses.replace(staged(), models=(*staged().models, named))])
    assert ">$a$ &lt;b&gt;<" in svg


def test_one_file_is_no_plot() -> None:
    alone = dataclasses.replace(staged(), models=staged().models[:2])
    assert grid_plots.scores_by_bytes([alone, task("mrpc", {"teacher": Score(1), "student": Score(2)})]) == ""
    lost = dataclasses.replace(staged().models[2], score=Score(float("nan")))
    assert grid_plots.scores_by_bytes([dataclasses.replace(alone, models=(*alone.models, lost))]) == ""


def test_equal_scores_and_sizes_are_drawn() -> None:
    twins = (staged().models[2], dataclasses.replace(staged().models[2], model="twin"))
    assert ">twin<" in grid_plots.scores_by_bytes([dataclasses.replace(staged(), models=twins)])


def test_labels_that_are_close_move_apart() -> None:
    moved = grid_plots.spread_apart([1.0, 1.1, 1.2, 9.9], gap=1.0, low=0.0, high=10.0)
    assert moved == [1.0, 2.0, 3.0, 9.9]
    assert grid_plots.spread_apart([], gap=1.0, low=0.0, high=1.0) == []


def test_each_layer_has_what_was_seen_and_what_its_grid_reaches() -> None:
    svg = grid_plots.input_ranges(ranges(), name="inputs")
    assert (lines(svg, "before"), lines(svg, "series-0")) == (6, 7), "the pooler was given nothing"
    assert [svg.count(f">{role}<") for role in ("up", "down", "pooler")] == [1, 1, 1]
    dynamic = grid_plots.input_ranges(ranges(scale=None), name="inputs")
    assert (lines(dynamic, "before"), lines(dynamic, "series-0")) == (6, 0)


@pytest.mark.parametrize(("largest", "wide"), [(3.0, False), (5000.0, True)])
def test_far_larger_inputs_have_a_logarithmic_axis(largest: float, wide: bool) -> None:
    assert (">1,000<" in grid_plots.input_ranges(ranges(largest=largest), name="inputs")) == wide


def test_without_ranges_there_is_no_plot() -> None:
    assert grid_plots.input_ranges((), name="inputs") == ""
    assert grid_plots.input_ranges(ranges(scale=None)[-1:], name="inputs") == ""
