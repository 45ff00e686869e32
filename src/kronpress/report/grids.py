"""What a run did to bits, as words and rows that every form of report shows alike."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kronpress.records import InputRange, ModelScore, NumberFormat, NumberFormats, QuantizationRecord, TaskRecord
from kronpress.report.numbers import MISSING, bit_widths, byte_size, change, percent, ratio, significant
from kronpress.report.scores import TEACHER, labels
from kronpress.report.sizes import Quantity
from kronpress.report.summary import QuantizedStep, RunSummary

PARTS = ("weights", "tables", "other")

ROLE_HEAD = ("layers", "number", "bits", "before", "after", "weight error", "output error")
"""What `role_rows` returns: bits are stored ones for each number, errors are means."""


def role_rows(record: QuantizationRecord) -> list[tuple[str, ...]]:
    """Return the layers of a step by role, under the names of `ROLE_HEAD`."""
    by_role = defaultdict(list)
    for layer in record.layers:
        by_role[layer.role].append(layer)
    rows: list[tuple[str, ...]] = []
    for role, layers in by_role.items():
        before, after = sum(layer.bytes_before for layer in layers), sum(layer.bytes_after for layer in layers)
        bits = statistics.fmean(layer.bits for layer in layers)
        errors = statistics.fmean(layer.relative_error for layer in layers)
        outputs = [layer.output_error for layer in layers if layer.output_error is not None]
        output = significant(statistics.fmean(outputs)) if outputs else MISSING
        rows.append(
            (
                role,
                str(len(layers)),
                significant(bits),
                byte_size(before),
                byte_size(after),
                significant(errors),
                output,
            )
        )
    return rows


def part_rows(summary: RunSummary) -> list[tuple[str, ...]]:
    """Return (part, before, after, change) of the bytes of a model, the sum last; old records do not know before."""
    if not summary.quantized:
        return []
    before, last = summary.quantized[0].record.parts_before, summary.quantized[-1].record
    sides = [(part, before.get(part), last.parts[part]) for part in PARTS if part in last.parts]
    sides.append(("all", sum(before.values()) if before else None, last.bytes))
    return [
        (part, MISSING if old is None else byte_size(old), byte_size(new), change(_bytes(old), after=_bytes(new)))
        for part, old, new in sides
    ]


def _bytes(size: int | None) -> Quantity | None:
    return None if size is None else Quantity(size, "bytes")


def formats_in_words(formats: NumberFormats) -> str:
    """Return what numbers have how many bits.

    >>> formats_in_words(NumberFormats(NumberFormat(2, "mse", 64), NumberFormat(32)))
    'weights: 2 bits (mse, a scale for every 64 numbers); tables: as they were; inputs of layers: as they were'
    """
    words = (_words(formats.weights), _words(formats.tables))
    inputs = "as they were" if formats.inputs is None else _words(formats.inputs, of_inputs=True)
    return f"weights: {words[0]}; tables: {words[1]}; inputs of layers: {inputs}"


def _words(numbers: NumberFormat, *, of_inputs: bool = False) -> str:
    if numbers.quantizer is None:
        return "as they were"
    shares = {"row": "a scale for every token" if of_inputs else "a scale for every row", "tensor": "one scale in all"}
    scales = shares.get(str(numbers.group), f"a scale for every {numbers.group} numbers")
    return f"{numbers.bits:g} {'bit' if numbers.bits == 1 else 'bits'} ({numbers.quantizer}, {scales})"


def size_words(first: QuantizationRecord, last: QuantizationRecord) -> str:
    """Return what the tensors of a model take after one step, and what they took before the same or an earlier one."""
    before = sum(first.parts_before.values())
    if not before:
        return byte_size(last.bytes)
    return f"{byte_size(last.bytes)}, before {byte_size(before)} ({ratio(before / last.bytes)} as much)"


def step_line(step: QuantizedStep) -> str:
    """Return what a quantize step did, on one line."""
    record = step.record
    words = "" if record.formats is None else f"{formats_in_words(record.formats)}; "
    return f"step {step.number}: {words}all tensors: {size_words(record, record)}"


def stage_lines(summary: RunSummary) -> Iterator[str]:
    """Go through all that lowered bits in a run, a line for each: quantize steps, then the stages of each task."""
    yield from map(step_line, summary.quantized)
    for label, task in zip(labels(summary.tasks), summary.tasks, strict=True):
        yield from (f"{label}, {_stage(task, model)}" for model in task.models if model.formats is not None)


def _stage(task: TaskRecord, model: ModelScore) -> str:
    assert model.formats is not None
    teacher, disk = task.of(TEACHER), model.footprint.bytes_on_disk
    kept = "" if teacher is None else f", the teacher {percent(teacher.score.value)}"
    size = "" if disk is None else f"; {byte_size(disk)} on disk"
    score = percent(model.score.value, deviation=model.score.deviation)
    return f"{model.model}: {bit_widths(model.formats)} bits of weights, tables, inputs; score {score}{kept}{size}"


@dataclass(frozen=True)
class Ranges:
    """The ranges of the rounded inputs of a model, and what it is called."""

    label: str
    inputs: Sequence[InputRange]


def all_ranges(summary: RunSummary) -> list[Ranges]:
    """Return the ranges of each quantize step, and of the last stage of each task that rounds inputs."""
    ranges = [Ranges(f"step {step.number}", step.record.inputs) for step in summary.quantized]
    for label, task in zip(labels(summary.tasks), summary.tasks, strict=True):
        ranges += [Ranges(f"{label}, {model.model}", model.inputs) for model in task.models if model.inputs][-1:]
    return [some for some in ranges if some.inputs]
