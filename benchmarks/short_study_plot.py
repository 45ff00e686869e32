"""Draw the Short Study: `general` against seconds of training, from its result and the speeds of its trainings.

    python -m benchmarks.short_study_plot --out docs/short-study.svg

Seconds are those that both cores need alone, by speeds of a quiet moment: the runs took place beside other work.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmarks.short_study import rate_of, seconds_of
from kronpress.checkpoint.files import read_json, write_text
from kronpress.report.svg import FAINT, SERIES, drawn

_LARGEST = 4  # ratio that is drawn
_MARKERS = "osD^v<>"
_RATIOS, _SECONDS = (0.8, 1, 1.5, 2, 3, 4), (100, 200, 300, 500, 1000)


def points(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """Return by start and training the seconds and `general` of the arms at the rate of their start, in order."""
    lines: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row in rows:
        seconds = seconds_of(row)
        if seconds is None or row["text"] != "whole" or row["rate"] != rate_of(row["start"]):
            continue
        if row["general"] < _LARGEST:
            lines.setdefault((row["start"], row["training"]), []).append((seconds, row["general"]))
    return {name: sorted(line) for name, line in lines.items()}


def picture(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the plot as SVG."""
    lines = points(rows)
    starts = list(dict.fromkeys(start for start, _ in lines))
    trainings = list(dict.fromkeys(training for _, training in lines))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        colors = {start: SERIES[index % len(SERIES)] for index, start in enumerate(starts)}
        markers = {training: _MARKERS[index % len(_MARKERS)] for index, training in enumerate(trainings)}
        for (start, training), line in lines.items():
            axes.plot(*zip(*line, strict=True), f"{markers[training]}-", color=colors[start], markersize=5, alpha=0.8)
        axes.set(xlabel="seconds of training, two cores", ylabel="general", xscale="log", yscale="log")
        axes.set_xticks(_SECONDS, [str(tick) for tick in _SECONDS])
        axes.set_yticks(_RATIOS, [str(tick) for tick in _RATIOS])
        axes.minorticks_off()
        axes.grid(axis="y")
        named = [Line2D([], [], color=color, label=start) for start, color in colors.items()]
        shaped = [Line2D([], [], color=FAINT, marker=shape, ls="", label=name) for name, shape in markers.items()]
        axes.add_artist(axes.legend(handles=named, loc="upper right", fontsize=7))
        figure.legend(handles=shaped, loc="outside lower center", ncols=4, fontsize=7)

    return drawn(draw, name="short-study", label="general against seconds of training", height=4.5)


def main(given: Sequence[str] | None = None) -> None:
    """Write the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/short-study.json"))
    parser.add_argument("--out", type=Path, default=Path("docs/short-study.svg"))
    arguments = parser.parse_args(given)
    write_text(arguments.out, picture(list(read_json(arguments.json).values())) + "\n")


if __name__ == "__main__":
    main()
