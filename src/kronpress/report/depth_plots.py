"""Plots of a report about blocks: which stay, what was measured to choose them, and their errors."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kronpress.records import ReconstructRecord, TruncateRecord
from kronpress.report.svg import AFTER, BEFORE, SERIES, drawn


def kept_blocks(record: TruncateRecord) -> str:
    """Return a bar for each block, those that stay in blue, or the measured value after each removal."""
    removals = record.measured if len(record.measured) < record.depth else ()

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        if removals:
            _after_removals(axes, record)
        else:
            _bars(axes, record)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel(record.measure.partition(",")[0])

    return drawn(draw, name="depth", label="Blocks that stay", height=2.6)


def _bars(axes: Axes, record: TruncateRecord) -> None:
    heights = {entry.block: entry.value for entry in record.measured}
    blocks = range(record.depth)
    colors = [AFTER if block in record.kept else BEFORE for block in blocks]
    axes.bar(blocks, [heights.get(block, 1.0) for block in blocks], color=colors)
    axes.set_xlabel("block")
    if not heights:
        axes.set_yticks([])


def _after_removals(axes: Axes, record: TruncateRecord) -> None:
    left = [record.depth - 1 - place for place in range(len(record.measured))]
    values = [entry.value for entry in record.measured]
    axes.plot(left, values, "o-", color=SERIES[0], markersize=4)
    for place, (count, value) in enumerate(zip(left, values, strict=True)):
        text = str(record.measured[place].block)
        axes.annotate(text, (count, value), xytext=(0, 5), textcoords="offset points", ha="center", fontsize=8)
    axes.invert_xaxis()
    axes.set_xlabel("blocks left; the number is that of the block that went")
    axes.grid(axis="y")


def block_errors(record: ReconstructRecord) -> str:
    """Return the error of each block before and after it was trained."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        blocks = [entry.block for entry in record.blocks]
        axes.bar(blocks, [entry.before for entry in record.blocks], color=BEFORE, label="before")
        axes.bar(blocks, [entry.after for entry in record.blocks], color=AFTER, width=0.5, label="after")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="block", ylabel="relative squared error")
        axes.legend()

    return drawn(draw, name="blocks", label="Errors of blocks before and after reconstruction", height=2.6)
