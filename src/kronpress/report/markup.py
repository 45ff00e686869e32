"""Escaped pieces of HTML: tables, plots, sections."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

NUMBER = "number"
PATH = "path"
TEXT = ""


def section(title: str, *, parts: Sequence[str]) -> str:
    """Return the non-empty `parts` under a heading, or nothing if all are empty."""
    body = "\n".join(part for part in parts if part)
    return f"<section>\n<h2>{escape(title)}</h2>\n{body}\n</section>" if body else ""


def pair(left: str, *, right: str) -> str:
    """Return two parts side by side, one alone over the whole width, or nothing."""
    body = "".join(f"<div>{part}</div>" for part in (left, right) if part)
    return f'<div class="pair">{body}</div>' if body else ""


def plot(svg: str, *, caption: str) -> str:
    """Return a plot with its caption, or nothing if there is no plot."""
    return f'<figure class="plot">{svg}<figcaption>{escape(caption)}</figcaption></figure>' if svg else ""


def caption(text: str) -> str:
    """Return a small line of explanation."""
    return f'<p class="caption">{escape(text)}</p>'


class Markup(str):
    """Text that is HTML already and is not escaped again."""


def bar(share: float) -> Markup:
    """Return a bar that fills `share` of its cell."""
    return Markup(f'<span class="bar"><i style="width:{100 * min(max(share, 0), 1):.1f}%"></i></span>')


def spread(low: float, *, high: float, full: float) -> Markup:
    """Return the interval `low` … `high` on a scale from 0 to `full`, with a mark at 1."""
    left, right, one = (100 * min(max(value / full, 0), 1) for value in (low, high, 1.0))
    interval = f'<i style="left:{left:.1f}%;width:{max(right - left, 0):.1f}%"></i>'
    return Markup(f'<span class="spread">{interval}<b style="left:{one:.1f}%"></b></span>')


def _row(cells: Sequence[str], *, tag: str, kinds: Sequence[str]) -> str:
    inner = [cell if isinstance(cell, Markup) else escape(cell) for cell in cells]
    marks = [f' class="{kind}"' if kind else "" for kind in kinds]
    if tag == "th":
        marks = [' class="number"' if kind == NUMBER else "" for kind in kinds]
    return "<tr>" + "".join(f"<{tag}{mark}>{cell}</{tag}>" for mark, cell in zip(marks, inner, strict=True)) + "</tr>"


def table(head: Sequence[str], *, kinds: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table with a kind (`TEXT`, `NUMBER`, `PATH`) for each column, or nothing if there are no rows."""
    if not rows:
        return ""
    body = "\n".join(_row(row, tag="td", kinds=kinds) for row in rows)
    top = f"<thead>{_row(head, tag='th', kinds=kinds)}</thead>\n" if any(head) else ""
    return f'<div class="scroll"><table>\n{top}<tbody>\n{body}\n</tbody>\n</table></div>'
