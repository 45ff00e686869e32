"""One self-contained HTML page: no scripts, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, TypeVar

from kronpress.checkpoint.files import write_text
from kronpress.imports import lazily
from kronpress.records import LayerChange, QuantizedLayer, Sample
from kronpress.report.grids import ROLE_HEAD, all_ranges, part_rows, role_rows, step_line
from kronpress.report.headline import headlines
from kronpress.report.markup import NUMBER, PATH, TEXT, bar, caption, pair, plot, section, spread, table
from kronpress.report.numbers import MISSING, abbreviated, byte_size, duration, ratio, significant
from kronpress.report.rows import (
    TEXT_SET_HEAD,
    footprint_rows,
    lm_eval_rows,
    perplexity_rows,
    speed_rows,
    text_set_rows,
)
from kronpress.report.scores import score_tables
from kronpress.report.summary import QuantizedStep, RunSummary

if TYPE_CHECKING:
    from kronpress.report import depth_plots, grid_plots, plots
else:
    depth_plots = lazily("kronpress.report.depth_plots")
    grid_plots = lazily("kronpress.report.grid_plots")
    plots = lazily("kronpress.report.plots")  # which imports matplotlib

WORST_LAYERS = 8
WIDEST_SCORES = 8  # columns that fit beside each other


def _lead(summary: RunSummary) -> str:
    words = f'<p class="lead">{escape(summary.description)}</p>\n' if summary.description else ""
    facts = {"Base model": summary.base_model, "Created": summary.created}
    if summary.steps:
        facts["Time"] = duration(sum(step.seconds for step in summary.steps))
    items = "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items() if value)
    return f'{words}<dl class="facts">{items}</dl>'


def _headlines(summary: RunSummary) -> str:
    cards = [
        f'<div class="headline"><p>{escape(item.label)}</p><p class="value">{escape(item.value)}</p>'
        f"<p>{escape(item.detail)}</p></div>"
        for item in headlines(summary)
    ]
    return f'<div class="headlines">{"".join(cards)}</div>' if cards else ""


def _quality(summary: RunSummary) -> str:
    head = ("Stage", "Text", "Protocol", "Perplexity", "vs. dense")
    numbers = table(head, kinds=(TEXT, TEXT, TEXT, NUMBER, NUMBER), rows=perplexity_rows(summary))
    picture = plot(plots.perplexity_bars(summary.perplexity), caption="Lower is better.")
    return section("Perplexity", parts=[pair(numbers, right=picture)])


def _texts(summary: RunSummary) -> str:
    head, kinds = [name.capitalize() for name in TEXT_SET_HEAD], (TEXT, TEXT, PATH, TEXT, NUMBER, NUMBER, NUMBER)
    numbers = table(head, kinds=kinds, rows=text_set_rows(summary))
    note = "Perplexities on texts of several kinds; general is the geometric mean of their ratios."
    return section("Kinds of text", parts=[numbers, caption(note)] if numbers else [])


def _lm_eval(summary: RunSummary) -> str:
    head, kinds = ("Stage", "Task", "Metric", "Dense", "Student"), (TEXT, TEXT, TEXT, NUMBER, NUMBER)
    numbers = table(head, kinds=kinds, rows=lm_eval_rows(summary))
    note = "Values of lm-eval with their standard errors; both models were measured in the same way."
    return section("Tasks of lm-eval", parts=[numbers, caption(note)] if numbers else [])


def _tasks(summary: RunSummary) -> str:
    parts = []
    for wide in score_tables(summary.tasks):
        grid = wide.turned() if len(wide.head) > WIDEST_SCORES else wide
        kinds = (TEXT, *[NUMBER] * (len(grid.head) - 1))
        parts += [table(grid.head, kinds=kinds, rows=grid.rows), caption(grid.caption)]
    spreads = any(model.score.deviation for task in summary.tasks for model in task.models)
    note = "Higher is better; the lines reach a standard deviation to either side." if spreads else "Higher is better."
    bars = plot(plots.task_bars(summary.tasks), caption=note)
    files_of = "Scores over the bytes of the saved models; a model that was not saved is left out."
    return section("Tasks", parts=[*parts, bars, plot(grid_plots.scores_by_bytes(summary.tasks), caption=files_of)])


def _size(summary: RunSummary) -> str:
    numbers = table(
        ("", "Before", "After", "Change"), kinds=(TEXT, NUMBER, NUMBER, NUMBER), rows=footprint_rows(summary)
    )
    picture = plot(plots.parameter_bars(summary), caption="Parameters before (gray) and after (blue).")
    return section("Footprint", parts=[pair(numbers, right=picture)])


def _speed(summary: RunSummary) -> str:
    full = max([2.0, *(1.1 * row.ratio_max for row in summary.speed)])
    scales = [spread(row.ratio_min, high=row.ratio_max, full=full) for row in summary.speed]
    rows = [(*row, scale) for row, scale in zip(speed_rows(summary), scales, strict=True)]
    head = ("", "Dense", "Student", "Ratio", "Spread", "0 … " + ratio(full))
    numbers = table(head, kinds=(TEXT, NUMBER, NUMBER, NUMBER, NUMBER, TEXT), rows=rows)
    note = "Dense and student were measured alternating in one process; above 1× the student is faster. The mark is 1×."
    return section("Speed", parts=[numbers, caption(note)] if numbers else [])


Layer = TypeVar("Layer", LayerChange, QuantizedLayer)


def _worst(layers: Sequence[Layer]) -> list[Layer]:
    return sorted(layers, key=lambda layer: layer.relative_error, reverse=True)[:WORST_LAYERS]


def _errors(summary: RunSummary) -> str:
    rows = [(layer.path, layer.role, significant(layer.relative_error)) for layer in _worst(summary.layers)]
    numbers = table(("Largest errors", "Role", "Error"), kinds=(PATH, TEXT, NUMBER), rows=rows)
    note = f"Relative error of {len(summary.layers)} replaced layers, before training."
    picture = plot(plots.layer_errors(summary.layers), caption=note)
    return section("What replacing the layers changed", parts=[pair(picture, right=numbers)])


def _depth(summary: RunSummary) -> str:
    parts = []
    for record in summary.truncated:
        words = f"{len(record.kept)} of {record.depth} blocks stay: {', '.join(map(str, record.kept))}. "
        parts.append(plot(depth_plots.kept_blocks(record), caption=words + record.measure))
    return section("Depth", parts=parts)


def _blocks(summary: RunSummary) -> str:
    note = "What leaves each block beside what leaves the dense one, on text that it was not trained on."
    parts = [plot(depth_plots.block_errors(record), caption=note) for record in summary.reconstructed]
    return section("Blocks trained one by one", parts=parts)


def _grids(summary: RunSummary) -> str:
    if not summary.quantized:
        return ""
    numbers = table(
        ("Bytes", "Before", "After", "Change"),
        kinds=(TEXT, NUMBER, NUMBER, NUMBER),
        rows=part_rows(summary),
    )
    bars = plot(grid_plots.byte_bars(summary.quantized), caption="Bytes by part; other are norms, biases and the like.")
    steps = [part for step in summary.quantized for part in _grid_step(step)]
    return section("Numbers on grids", parts=[pair(bars, right=numbers), *steps])


def _grid_step(step: QuantizedStep) -> Iterator[str]:
    layers = step.record.layers
    yield caption(f"{step_line(step).capitalize()}.")
    picture = plots.layer_errors(layers, name=f"grids-{step.number}")
    yield plot(picture, caption=f"Relative error of the weights of {len(layers)} layers, before training.")
    kinds = (TEXT, *[NUMBER] * (len(ROLE_HEAD) - 1))
    yield table([name.capitalize() for name in ROLE_HEAD], kinds=kinds, rows=role_rows(step.record))
    head = ("Largest errors", "Role", "Bits", "Before", "After", "Weight error", "Output error")
    yield caption("Bits are those stored for each number, scales included; errors of roles are means of their layers.")
    yield table(head, kinds=(PATH, TEXT, *[NUMBER] * 5), rows=[_grid_row(layer) for layer in _worst(layers)])


def _grid_row(layer: QuantizedLayer) -> tuple[str, ...]:
    sizes = (significant(layer.bits), byte_size(layer.bytes_before), byte_size(layer.bytes_after))
    output = MISSING if layer.output_error is None else significant(layer.output_error)
    return (layer.path, layer.role, *sizes, significant(layer.relative_error), output)


def _ranges(summary: RunSummary) -> str:
    note = "gray: what each layer was given as the rounding began; blue: what its inputs are rounded to, where stored"
    pictures = [
        plot(grid_plots.input_ranges(ranges.inputs, name=f"inputs-{index}"), caption=f"{ranges.label}; {note}.")
        for index, ranges in enumerate(all_ranges(summary))
    ]
    return section("Ranges of rounded inputs", parts=pictures)


def _training(summary: RunSummary) -> str:
    series = {"Training": summary.training, "Validation": summary.validation}
    rows = [
        (name, abbreviated(points[-1].tokens), significant(points[0].loss), significant(points[-1].loss))
        for name, points in series.items()
        if points
    ]
    numbers = table(("Loss (nats)", "Tokens", "First", "Last"), kinds=(TEXT, NUMBER, NUMBER, NUMBER), rows=rows)
    curve = plots.training_curve(summary.training, validation=summary.validation)
    return section("Training", parts=[pair(plot(curve, caption="Loss against training tokens."), right=numbers)])


def _sample(sample: Sample) -> str:
    sides = "".join(
        f"<div><h4>{side}</h4><p>{escape(text)}</p></div>"
        for side, text in (("Before", sample.before), ("After", sample.after))
    )
    return f'<div class="sample"><h3>{escape(sample.prompt)}</h3><div class="pair">{sides}</div></div>'


def _notes(summary: RunSummary) -> str:
    items = "".join(f"<li>{escape(note)}</li>" for note in summary.notes)
    return section("Notes", parts=[f"<ul>{items}</ul>"] if items else [])


def _times(summary: RunSummary) -> str:
    whole = sum(step.seconds for step in summary.steps) or 1.0
    rows = [(step.name, duration(step.seconds), bar(step.seconds / whole)) for step in summary.steps]
    return section("Time", parts=[table(("Step", "Took", ""), kinds=(TEXT, NUMBER, TEXT), rows=rows)])


def _recipe(summary: RunSummary) -> str:
    text = summary.recipe_yaml.strip("\n")
    return section("Recipe", parts=[f"<pre>{escape(text)}</pre>"] if text else [])


def _environment(summary: RunSummary) -> str:
    rows = list(summary.environment.items())
    return section("Environment", parts=[table(("", ""), kinds=(TEXT, PATH), rows=rows)])


def _sections(summary: RunSummary) -> Iterator[str]:
    yield _quality(summary)
    yield _texts(summary)
    yield _lm_eval(summary)
    yield _tasks(summary)
    yield _size(summary)
    yield _speed(summary)
    yield _training(summary)
    yield _depth(summary)
    yield _errors(summary)
    yield _blocks(summary)
    yield _grids(summary)
    yield _ranges(summary)
    yield section("Samples", parts=[_sample(sample) for sample in summary.samples])
    yield _notes(summary)
    yield _times(summary)
    yield _recipe(summary)
    yield _environment(summary)


def render(summary: RunSummary) -> str:
    """Return the whole report as one HTML page; parts without data are left out."""
    folder = files("kronpress.report")
    return Template(folder.joinpath("page.html").read_text(encoding="utf-8")).substitute(
        title=escape(summary.title),
        style=folder.joinpath("style.css").read_text(encoding="utf-8").strip(),
        lead=_lead(summary),
        headlines=_headlines(summary),
        sections="\n".join(part for part in _sections(summary) if part),
    )


def write_report(path: str | Path, *, summary: RunSummary) -> Path:
    """Write the report to `path` in one move, so that a reader never sees half a page; return the path."""
    target = Path(path)
    write_text(target, render(summary))
    return target
