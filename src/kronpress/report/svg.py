"""Matplotlib figures as inline SVG that takes its colors and its font from the page around it."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK, FAINT, GRID = "#1c2433", "#66708a", "#e3e7ef"
SERIES = ("#2f6fde", "#e07a1f", "#1a9a76", "#a24fc4", "#d1416b", "#7b8a1d", "#0f93b5", "#8c6a4f")
BEFORE, AFTER = "#a9b4c8", SERIES[0]
_VARIABLES = {
    INK: "ink",
    FAINT: "faint",
    GRID: "grid",
    BEFORE: "before",
    **{color: f"series-{i}" for i, color in enumerate(SERIES)},
}
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "kronpress",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # ships with matplotlib; the page replaces it
    "font.size": 9.5,
    "text.usetex": False,
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
}
WIDTH = 5.0  # inches: at natural size on a phone, enlarged on a desk


def _own(tag: str, name: str) -> str:
    """Make ids, colors and font of one tag those of the page; what stands between tags is the user's."""
    tag = tag.replace("xlink:href", "href")
    tag = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', tag)
    tag = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", tag)
    tag = re.sub(r"'DejaVu Sans'[^;\"]*", "var(--sans, sans-serif)", tag)
    for color, variable in _VARIABLES.items():
        tag = tag.replace(color, f"var(--{variable}, {color})")
    return re.sub(r'="[^"]*"', lambda match: re.sub(r"(\d\.\d\d)\d+", r"\1", match.group()), tag)


def _inline(svg: str, *, name: str, label: str) -> str:
    """Turn a whole SVG document into one element whose ids and styles stay its own."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<[^>]*>", lambda tag: _own(tag.group(), name), svg)
    view = re.search(r'viewBox="[^"]*"', svg)
    assert view
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" {view.group()} role="img" aria-label="{label}">'
    return re.sub(r">\s+<", "><", opening + svg[svg.index(">") + 1 :]).strip()


def drawn(draw: Callable[[Figure], None], *, name: str, label: str, height: float) -> str:
    """Return what `draw` puts on a figure of `height` inches as one SVG element whose ids begin with `name`."""
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        figure.patch.set_visible(False)
        FigureCanvasSVG(figure)
        draw(figure)
        for axes in figure.axes:
            axes.patch.set_visible(False)
        target = io.StringIO()
        figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None})
    return _inline(target.getvalue(), name=name, label=label)
