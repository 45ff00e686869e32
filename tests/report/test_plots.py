"""Each plot is one element that takes its colors from the page, and nothing where there is nothing to show."""

from __future__ import annotations

import dataclasses
import math
from xml.etree import ElementTree

import matplotlib
import pytest

from kronpress.records import LayerChange, Score, TrainingPoint
from kronpress.report import PerplexityRow, RunSummary, grid_plots, plots
from tests.report.examples import empty, errors, full, task, tasks, training


def every_plot(summary: RunSummary) -> dict[str, str]:
    return {
        "parameters": plots.parameter_bars(summary),
        "errors": plots.layer_errors(summary.layers),
        "training": plots.training_curve(summary.training, validation=summary.validation),
        "perplexity": plots.perplexity_bars(summary.perplexity),
        "tasks": plots.task_bars(summary.tasks),
        "bytes": grid_plots.byte_bars(summary.quantized),
    }


@pytest.mark.parametrize(("name", "svg"), every_plot(full()).items())
def test_a_plot_is_one_element_with_its_own_ids(name: str, svg: str) -> None:
    root = ElementTree.fromstring(svg)
    assert root.get("viewBox")
    assert all(item.get("id", name).startswith(name) for item in root.iter())
    assert "var(--ink, #" in svg
    assert "var(--sans, sans-serif)" in svg
    assert not [item for item in root.iter() if item.tag.endswith(("style", "metadata"))]


def test_without_data_there_is_no_plot() -> None:
    assert set(every_plot(empty()).values()) == {""}


def test_errors_outside_numbered_blocks_are_not_plotted() -> None:
    assert plots.layer_errors([LayerChange("lm_head", "head", None, 8, 4, 0.1, "")]) == ""


def test_one_training_point_is_not_a_curve() -> None:
    assert plots.training_curve([TrainingPoint(1, 1.0)]) == ""


@pytest.mark.parametrize(("worst", "log"), [(149.0, False), (151.0, True), (2.7e7, True)])
def test_the_axis_is_logarithmic_above_five_times_the_best(worst: float, log: bool) -> None:
    rows = [PerplexityRow("dense", "p", "t", 30.0, 1.0), PerplexityRow("bad", "p", "t", worst, worst / 30)]
    svg = plots.perplexity_bars(rows)
    assert ("perplexity-matplotlib.axis_1" in svg and ">100<" in svg) == log


def bars(svg: str, color: str) -> int:
    """Count the bars of a color, without the patch of the legend."""
    return svg.count(f"fill: var(--{color}, ") - 1


def test_each_model_has_a_bar_of_its_color_for_each_task() -> None:
    svg = plots.task_bars([*tasks(), task("cola", {"teacher": Score(-3.5), "student": Score(math.nan)})])
    assert [bars(svg, color) for color in ("before", "series-0", "series-1", "series-2")] == [4, 3, 3, -1]
    for expected in (">84.20 ± 0.60<", ">−3.50<", ">wnli<", ">teacher<", ">student<", ">tiny<"):
        assert svg.count(expected) == 1


def test_names_in_the_legend_are_text() -> None:
    svg = plots.task_bars([task("rte", {"teacher": Score(70), "_a <b> $c$": Score(60)})])
    assert ">_a &lt;b&gt; $c$<" in svg


def test_more_baselines_than_colors_begin_again() -> None:
    svg = plots.task_bars([task("rte", {f"baseline {i}": Score(50 + i) for i in range(9)})])
    assert [bars(svg, f"series-{i}") for i in range(8)] == [-1, 3, 3, 1, 1, 1, 1, 1]


def test_scores_that_are_not_finite_have_no_bars() -> None:
    assert plots.task_bars([task("rte", {"teacher": Score(math.nan)})]) == ""


def test_dollar_signs_are_text() -> None:
    assert "$up$" in plots.layer_errors([dataclasses.replace(error, role="$up$") for error in errors()])


def test_global_settings_stay_as_they_were() -> None:
    before = dict(matplotlib.rcParams)
    plots.training_curve(training())
    assert dict(matplotlib.rcParams) == before
