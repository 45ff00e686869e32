"""The plots of a report about bits: bytes by part, scores against bytes, ranges of rounded inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from kronpress.records import InputRange, TaskRecord
from kronpress.report.grids import PARTS
from kronpress.report.numbers import byte_size
from kronpress.report.scores import STUDENT, TEACHER, labels
from kronpress.report.summary import QuantizedStep
from kronpress.report.svg import AFTER, BEFORE, FAINT, INK, SERIES, drawn

WIDE_FROM_RATIO = 20


def byte_bars(steps: Sequence[QuantizedStep]) -> str:
    """Return a bar of the bytes by part before the first step and after each, or nothing if there is none."""
    if not steps:
        return ""
    first = steps[0].record.parts_before
    rows = [("before", first)] if first else []
    rows += [(f"after step {step.number}", step.record.parts) for step in steps]
    most = max(sum(parts.values()) for _, parts in rows)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for row, (_, parts) in enumerate(rows):
            left = 0
            for part, color in zip(PARTS, SERIES, strict=False):
                axes.barh(row, parts.get(part, 0), left=left, color=color, height=0.66)
                left += parts.get(part, 0)
            text = (byte_size(left), (left, row))
            axes.annotate(*text, xytext=(4, 0), textcoords="offset points", va="center", color=INK)
        axes.invert_yaxis()
        axes.spines["bottom"].set_visible(False)
        axes.set_yticks(range(len(rows)), [label for label, _ in rows], color=INK)
        axes.set_xlim(0, 1.25 * most)
        axes.set_xticks([])
        patches = [Line2D([], [], color=color, linewidth=6) for color in SERIES[: len(PARTS)]]
        figure.legend(patches, PARTS, loc="outside upper left", ncols=3)

    return drawn(draw, name="bytes", label="Bytes by part", height=0.6 + 0.34 * len(rows))


def spread_apart(heights: Sequence[float], *, gap: float, low: float, high: float) -> list[float]:
    """Return heights from the lowest to the highest, moved so far that none is nearer to the next than `gap`.

    They stay between `low` and `high` where all of them fit in there.

    >>> spread_apart([0.0, 0.0, 5.0], gap=1.0, low=0.0, high=9.0)
    [0.0, 1.0, 5.0]
    >>> spread_apart([8.5, 9.0], gap=1.0, low=0.0, high=9.0)
    [8.0, 9.0]
    """
    moved: list[float] = []
    for height in heights:
        moved.append(max(height, low, moved[-1] + gap) if moved else max(height, low))
    for index in reversed(range(len(moved))):
        moved[index] = min(moved[index], high if index + 1 == len(moved) else moved[index + 1] - gap)
    return moved


Point = tuple[int, float, str]
"""The bytes of a model's file, its score, and its name."""


def _points(task: TaskRecord) -> list[Point]:
    """Return the models of a task that have a file and a score, from the lowest score to the highest."""
    models = [(model.footprint.bytes_on_disk, model.score.value, model.model) for model in task.models]
    points = [(size, score, name) for size, score, name in models if size and math.isfinite(score)]
    return sorted(points, key=lambda point: point[1])


def _score_axes(axes: Axes, *, label: str, points: Sequence[Point], sizes: Sequence[int], rows: int) -> None:
    sizes_here, scores, names = zip(*points, strict=True)
    margin = 0.08 * (scores[-1] - scores[0]) or 1.0
    low, high = scores[0] - margin, scores[-1] + margin
    axes.set_xscale("log", base=2)
    axes.set_xlim(min(sizes) / 1.3, max(sizes) * 1.3)
    axes.set_ylim(low, high)
    axes.set_title(label, loc="left", fontsize=9, color=FAINT, pad=9)
    colors = [{TEACHER: BEFORE, STUDENT: AFTER}.get(name, SERIES[1]) for name in names]
    axes.scatter(sizes_here, scores, color=colors, s=26, zorder=3)
    heights = spread_apart(scores, gap=(high - low) / max(rows, 1), low=low, high=high)
    for (size, score, name), height, color in zip(points, heights, colors, strict=True):
        place = axes.get_yaxis_transform()
        axes.annotate(
            fill(name, 24),
            (size, score),
            xytext=(1.04, height),
            textcoords=place,
            va="center",
            color=INK,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.6, "alpha": 0.6, "shrinkB": 4},
        )
    axes.xaxis.set_major_locator(LogLocator(base=2, numticks=6))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: byte_size(value).replace(".0 ", " ")))
    axes.grid(axis="both")
    axes.set(ylabel="score")


def scores_by_bytes(tasks: Sequence[TaskRecord]) -> str:
    """Return the score of each model over the bytes of its file, a panel for each task.

    Models without a file are left out, and tasks where fewer than two have one; nothing is returned for none.
    """
    panels = [(label, _points(task)) for label, task in zip(labels(tasks), tasks, strict=True)]
    panels = [(label, points) for label, points in panels if len(points) > 1]
    if not panels:
        return ""
    sizes = [size for _, points in panels for size, _, _ in points]
    heights = [max(1.5, 0.22 * len(points)) for _, points in panels]

    def draw(figure: Figure) -> None:
        grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)
        for axes, (label, points), height in zip(grid[:, 0], panels, heights, strict=True):
            _score_axes(axes, label=label, points=points, sizes=sizes, rows=round(height / 0.19))
        grid[-1, 0].set_xlabel("bytes of the file")

    return drawn(
        draw, name="score-bytes", label="Scores over bytes of files", height=0.5 + sum(heights) + 0.6 * len(panels)
    )


def _places(inputs: Sequence[InputRange]) -> tuple[list[int], dict[str, tuple[int, int]]]:
    """Return where each range stands, those of a role beside each other, and from where to where each role does."""
    places: list[int] = []
    spans: dict[str, tuple[int, int]] = {}
    for place, layer in enumerate(inputs):
        places.append(place + len(spans) - (layer.role in spans))
        spans[layer.role] = (spans.get(layer.role, (places[-1], 0))[0], places[-1])
    return places, spans


def input_ranges(inputs: Sequence[InputRange], *, name: str) -> str:
    """Return what was seen of the inputs of each layer, and what they are rounded to; nothing if neither is known.

    Layers stand by role and block. The axis is linear between −1 and 1 and logarithmic outside where some layer has
    far larger inputs than most.
    """
    order = list(dict.fromkeys(layer.role for layer in inputs))
    ranged = sorted(inputs, key=lambda layer: (order.index(layer.role), -1 if layer.block is None else layer.block))
    ends = [end for layer in ranged for end in (layer.low, layer.high, *(layer.reach or ())) if end is not None]
    if not ends:
        return ""
    places, spans = _places(ranged)
    sizes = sorted(abs(end) for end in ends)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for place, layer in zip(places, ranged, strict=True):
            if layer.low is not None and layer.high is not None:
                axes.vlines(place, layer.low, layer.high, color=BEFORE, linewidth=4)
            if layer.reach is not None:
                axes.vlines(place, *layer.reach, color=AFTER, linewidth=1.6)
        if sizes[-1] > WIDE_FROM_RATIO * max(1.0, sizes[len(sizes) // 2]):
            axes.set_yscale("symlog", linthresh=1.0)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
        middles = [sum(span) / 2 for span in spans.values()]
        axes.set_xticks(middles, list(spans), color=INK, rotation=30, ha="right", rotation_mode="anchor")
        for (_, last), (first, _) in pairwise(spans.values()):
            axes.axvline((last + first) / 2, color=FAINT, linewidth=0.4)
        axes.set_ylabel("inputs")
        axes.grid(axis="y")

    return drawn(draw, name=name, label="Ranges of rounded inputs", height=2.8)
