"""The plots of a report; each is one SVG element, or the empty text where there is nothing to show."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from kronpress.records import LayerChange, QuantizedLayer, TaskRecord, TrainingPoint
from kronpress.report.numbers import abbreviated, percent, significant
from kronpress.report.scores import STUDENT, TEACHER, labels, models
from kronpress.report.sizes import quantities
from kronpress.report.summary import PerplexityRow, RunSummary
from kronpress.report.svg import AFTER, BEFORE, FAINT, INK, SERIES, drawn

LOG_FROM_RATIO = 5


def _bars(
    axes: Axes,
    *,
    at: Sequence[float],
    values: Sequence[float],
    colors: Sequence[str],
    texts: Sequence[str],
    errors: Sequence[float] = (),
) -> None:
    """Draw horizontal bars at the heights `at`, counted from the top, each with its value at the end."""
    axes.barh(at, values, color=colors, height=0.66, xerr=errors or None, ecolor=FAINT)
    axes.invert_yaxis()
    axes.spines["bottom"].set_visible(False)
    ends = [max(value, 0) + error for value, error in zip(values, errors or [0.0] * len(values), strict=True)]
    for row, end, text in zip(at, ends, texts, strict=True):
        axes.annotate(text, (end, row), xytext=(4, 0), textcoords="offset points", va="center", color=INK)


def parameter_bars(summary: RunSummary) -> str:
    """Return bars of each parameter count before and after, or nothing if none is known."""
    before, after = quantities(summary.footprint_before), quantities(summary.footprint_after)
    labels = [label for label, value in before.items() if value.unit == "parameters" and label in after]
    if not labels:
        return ""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        values = [side[label].value for label in labels for side in (before, after)]
        at = [2.2 * group + 0.8 * side for group in range(len(labels)) for side in (0, 1)]
        _bars(axes, at=at, values=values, colors=[BEFORE, AFTER] * len(labels), texts=[*map(abbreviated, values)])
        middles = [2.2 * group + 0.4 for group in range(len(labels))]
        axes.set_yticks(middles, [label.replace(", ", ",\n") for label in labels], color=INK)
        axes.set_xlim(0, 1.2 * max(values))
        axes.set_xticks([])

    return drawn(draw, name="parameters", label="Parameters before and after", height=0.4 + 0.72 * len(labels))


def _by_role(layers: Sequence[LayerChange] | Sequence[QuantizedLayer]) -> dict[str, list[tuple[int, float]]]:
    groups: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for layer in layers:
        if layer.block is not None and math.isfinite(layer.relative_error):
            groups[layer.role].append((layer.block, layer.relative_error))
    return {role: sorted(points) for role, points in groups.items()}


def layer_errors(layers: Sequence[LayerChange] | Sequence[QuantizedLayer], *, name: str = "errors") -> str:
    """Return the relative error over the block index, one line for each role, or nothing if none is in a block.

    Ids in the plot begin with `name`, which no other plot of the page has.
    """
    groups = _by_role(layers)
    if not groups:
        return ""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for index, (role, points) in enumerate(groups.items()):
            blocks, values = zip(*points, strict=True)
            axes.plot(blocks, values, ".-", color=SERIES[index % len(SERIES)], label=role, linewidth=1.4, markersize=5)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="block", ylabel="relative error")
        axes.grid(axis="y")
        figure.legend(loc="outside upper left", ncols=3)

    return drawn(draw, name=name, label="Relative error of each layer", height=3.0)


def smoothed(values: Sequence[float], *, reach: int) -> list[float]:
    """Return the mean of each value with up to `reach` neighbors on either side.

    >>> smoothed([0.0, 3.0, 6.0, 0.0], reach=1)
    [1.5, 3.0, 3.0, 3.0]
    """
    windows = [values[max(0, index - reach) : index + reach + 1] for index in range(len(values))]
    return [sum(window) / len(window) for window in windows]


def _ticks() -> FuncFormatter:
    return FuncFormatter(lambda value, _: abbreviated(value).replace(".0 ", " "))


def training_curve(training: Sequence[TrainingPoint], *, validation: Sequence[TrainingPoint] = ()) -> str:
    """Return the loss over training tokens, raw and smoothed, or nothing for fewer than two finite points."""
    points = [point for point in training if math.isfinite(point.loss)]
    held_out = [point for point in validation if math.isfinite(point.loss)]
    if len(points) < 2:
        return ""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        tokens, losses = [point.tokens for point in points], [point.loss for point in points]
        axes.plot(tokens, losses, color=SERIES[0], alpha=0.45, linewidth=0.8, label="each logged step")
        axes.plot(tokens, smoothed(losses, reach=len(points) // 25), color=SERIES[0], linewidth=1.8, label="smoothed")
        if held_out:
            x, y = [point.tokens for point in held_out], [point.loss for point in held_out]
            axes.plot(x, y, "o", color=SERIES[1], markersize=4, label="validation")
        axes.xaxis.set_major_formatter(_ticks())
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.set(xlabel="training tokens", ylabel="loss (nats)")
        axes.grid(axis="y")
        figure.legend(loc="outside upper left", ncols=3)

    return drawn(draw, name="training", label="Training loss", height=3.0)


def _perplexity_axes(axes: Axes, *, rows: Sequence[PerplexityRow], most: float, log: bool) -> None:
    values = [row.perplexity for row in rows]
    colors = [BEFORE, *[AFTER] * (len(rows) - 1)]
    _bars(axes, at=range(len(rows)), values=values, colors=colors, texts=[*map(significant, values)])
    axes.set_yticks(range(len(rows)), [fill(row.stage, 20) for row in rows], color=INK)
    axes.set_title(f"{rows[0].text}, {rows[0].protocol}", loc="left", fontsize=9, color=FAINT, pad=9)
    if log:
        axes.set_xscale("log")
        axes.set_xlim(1, most**1.22)
        axes.grid(axis="x")
        axes.xaxis.set_major_formatter(_ticks())
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.set_xlim(0, 1.2 * most)
        axes.set_xticks([])


def perplexity_bars(rows: Sequence[PerplexityRow]) -> str:
    """Return bars of the perplexity after each stage, one panel for each protocol and text.

    The axis is logarithmic, from perplexity 1, as soon as a stage exceeds five times the best one.
    """
    panels: dict[tuple[str, str], list[PerplexityRow]] = defaultdict(list)
    for row in rows:
        if math.isfinite(row.perplexity) and row.perplexity >= 1:
            panels[row.protocol, row.text].append(row)
    if not panels:
        return ""
    every = [row.perplexity for panel in panels.values() for row in panel]
    log = max(every) > LOG_FROM_RATIO * min(every)

    def draw(figure: Figure) -> None:
        ratios = [len(panel) + 0.4 for panel in panels.values()]
        grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=ratios)
        for axes, panel in zip(grid[:, 0], panels.values(), strict=True):
            _perplexity_axes(axes, rows=panel, most=max(every), log=log)

    height = 0.2 + sum(0.55 + 0.3 * len(panel) for panel in panels.values())
    return drawn(draw, name="perplexity", label="Perplexity after each stage", height=height)


def _task_axes(axes: Axes, *, tasks: Sequence[TaskRecord], colors: Mapping[str, str]) -> None:
    bars, middles, top = [], [], 0.0
    for task in tasks:
        known = {model.model: model.score for model in task.models if math.isfinite(model.score.value)}
        shown = [name for name in colors if name in known]
        bars += [(top + 0.8 * index, colors[name], known[name]) for index, name in enumerate(shown)]
        middles.append(top + 0.4 * max(len(shown) - 1, 0))
        top += 0.8 * max(len(shown), 1) + 0.6
    at, shades, scores = zip(*bars, strict=True)
    values, errors = [score.value for score in scores], [score.deviation or 0.0 for score in scores]
    texts = [percent(score.value, deviation=score.deviation) for score in scores]
    _bars(axes, at=at, values=values, colors=shades, texts=texts, errors=errors)
    axes.margins(y=0.02)
    axes.set_yticks(middles, [fill(label, 12) for label in labels(tasks)], color=INK)
    axes.set_xlim(1.1 * min(0, *values), 1.35 * max(1, *values))
    axes.set_xticks([])


def task_bars(tasks: Sequence[TaskRecord]) -> str:
    """Return bars of the score of each model, side by side for each task, or nothing if no score is known."""
    known = [score.score.value for task in tasks for score in task.models]
    if not any(map(math.isfinite, known)):
        return ""
    names = models(tasks)
    baselines = [name for name in names if name not in (TEACHER, STUDENT)]
    others = {name: SERIES[1 + index % (len(SERIES) - 1)] for index, name in enumerate(baselines)}
    colors = {name: {TEACHER: BEFORE, STUDENT: AFTER, **others}[name] for name in names}

    def draw(figure: Figure) -> None:
        _task_axes(figure.subplots(), tasks=tasks, colors=colors)
        patches = [Patch(color=color) for color in colors.values()]
        figure.legend(patches, [fill(name, 24) for name in names], loc="outside upper left", ncols=3)

    height = 0.4 + 0.25 * math.ceil(len(names) / 3) + 0.27 * (0.8 * len(known) + 0.6 * len(tasks))
    return drawn(draw, name="tasks", label="Score of each model on each task", height=height)
