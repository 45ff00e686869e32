"""A run with realistic, invented numbers."""

from __future__ import annotations

import dataclasses
import math
import random

from kronpress.records import (
    Footprint,
    InputRange,
    LayerChange,
    ModelScore,
    NumberFormat,
    NumberFormats,
    QuantizationRecord,
    QuantizedLayer,
    Sample,
    Score,
    SeedScore,
    SpeedRow,
    TaskRecord,
    TrainingPoint,
)
from kronpress.report import PerplexityRow, QuantizedStep, RunSummary, StepTime

RECIPE = """\
# Half of every feed-forward, then train back.
model: smollm2-135m
steps:
  - calibrate: {tokens: 32768}
  - prune: {target: feed-forward, keep: 0.5, score: surgeon}
  - distill:
      loss: {kind: kl, temperature: 1.0}
      tokens: 250000
      learning_rate: 3.0e-4
  - evaluate: {texts: [wikitext-2], windows: 12}
"""


def footprint(scale: float) -> Footprint:
    return Footprint(
        parameters=round(134_515_008 * scale),
        parameters_untied=round(162_826_560 * scale),
        parameters_without_head=round(106_203_456 * scale),
        parameters_effective=0,
        bytes_in_memory=round(269_060_552 * scale),
        bytes_on_disk=round(269_060_552 * scale),
        flops_per_token=round(2.69e8 * scale),
        block_flops_per_token=0,
    )


def errors() -> list[LayerChange]:
    chance = random.Random(0)
    return [
        LayerChange(
            path=f"model.layers.{block}.mlp.{role}_proj",
            role=f"{role}_proj",
            block=block,
            parameters_before=884_736,
            parameters_after=442_368,
            layer="768 hidden neurons",
            relative_error=start + 0.12 * math.sin(block / 9) + 0.02 * chance.random(),
        )
        for role, start in (("gate", 0.31), ("up", 0.34), ("down", 0.22))
        for block in range(30)
    ]


def formats(weights: float, tables: float, inputs: float | None = None) -> NumberFormats:
    """The bits of a scheme, weights in groups of 64."""
    rounding = None if inputs is None else NumberFormat(inputs, "lsq", "tensor")
    return NumberFormats(NumberFormat(weights, "mse", 64), NumberFormat(tables, "mse", "row"), rounding)


def ranges(*, scale: float | None = 0.5, largest: float = 3.0) -> tuple[InputRange, ...]:
    """The ranges of two roles in three blocks, and of a pooler that was given nothing."""
    layers = [(f"layer.{block}.{role}", role, block) for block in range(3) for role in ("up", "down")]
    seen = tuple(
        InputRange(path, role, block, "int4", (-8, 7), scale, low=-2.0, high=largest if block == 2 else 1.5)
        for path, role, block in layers
    )
    return (*seen, InputRange("pooler", "pooler", None, "int4", (-8, 7), scale))


def quantized(number: int = 2, *, bits: float = 4, before: bool = True) -> QuantizedStep:
    """A step that put a table and two layers in each of three blocks on grids."""
    layers = [QuantizedLayer("embed", "embedding", None, 8.25, 4000, 1000, 0.004)]
    for block in range(3):
        for role, error in (("up", 0.1), ("down", 0.2)):
            path = f"layer.{block}.{role}"
            layers.append(QuantizedLayer(path, role, block, bits + 0.25, 1000, 200, error + block / 100, error / 2))
    return QuantizedStep(
        number,
        QuantizationRecord(
            scheme={},
            fit={"name": "nearest"},
            layers=tuple(layers),
            bytes=2500,
            parts={"weights": 1200, "tables": 1000, "other": 300},
            parts_before={"weights": 6000, "tables": 4000, "other": 300} if before else {},
            formats=formats(bits, 8) if before else None,
        ),
    )


def staged() -> TaskRecord:
    """A teacher that was not saved, a student, and two stages of fewer bits, the last with rounded inputs."""
    plain = task("rte", {"teacher": Score(70), "student": Score(65), "4-32": Score(64), "2-8": Score(61, 0.5, 3)})
    files = (None, 57_000_000, 7_000_000, 3_600_000)
    bits = (None, None, formats(4, 4), formats(2, 2, 8))
    models = tuple(
        dataclasses.replace(
            model,
            footprint=dataclasses.replace(model.footprint, bytes_on_disk=size),
            formats=widths,
            inputs=() if widths is None or widths.inputs is None else ranges(),
        )
        for model, size, widths in zip(plain.models, files, bits, strict=True)
    )
    return dataclasses.replace(plain, models=models)


def training() -> list[TrainingPoint]:
    chance = random.Random(1)
    return [
        TrainingPoint(tokens=2048 * step, loss=0.9 * math.exp(-step / 25) + 0.42 + 0.05 * chance.gauss(0, 1))
        for step in range(1, 121)
    ]


def task(name: str, scores: dict[str, Score], *, step: int = 3, hans: dict[str, Score] | None = None) -> TaskRecord:
    """The scores of models on one task, some of them also on HANS; the larger models come first."""
    metrics = {"mrpc": ("f1", "accuracy"), "cola": ("matthews",)}.get(name, ("accuracy",))
    sizes = [Footprint(n, 0, 0, 0, 0, None, 2 * n, 0) for n in (109_000_000, 57_000_000, 14_400_000)]
    models = tuple(
        ModelScore(
            model,
            score,
            footprint=sizes[min(index, 2)],
            seeds=(SeedScore(0, score.value, {"accuracy": score.value}),),
            elsewhere={"hans": {"accuracy": (hans or {})[model]}} if model in (hans or {}) else {},
        )
        for index, (model, score) in enumerate(scores.items())
    )
    return TaskRecord(name, "dev", metrics, {"train": 3668, "dev": 408}, models, step=step)


def tasks() -> list[TaskRecord]:
    return [
        task("mrpc", {"teacher": Score(90, 1, 3), "student": Score(84.2, 0.604, 3), "tiny": Score(80, 0.5, 3)}),
        task(
            "rte",
            {"teacher": Score(70, 2, 3), "student": Score(65.1, 1.25, 3), "tiny": Score(60, 0.5, 3)},
            hans={"teacher": Score(54.321, 3, 3), "student": Score(50.5, 0.25, 3)},
        ),
        task("wnli", {"teacher": Score(50, 0, 3), "student": Score(56.34, 0, 3), "tiny": Score(40, 0.5, 3)}),
    ]


def full() -> RunSummary:
    protocol, text = "windows-512", "wikitext-2 test"
    return RunSummary(
        title="SmolLM2-135M, half of every feed-forward",
        description="Hidden neurons chosen by activation, down-projection re-solved, trained back by distillation.",
        base_model="HuggingFaceTB/SmolLM2-135M-Instruct",
        created="2026-03-14 15:09 UTC",
        recipe_yaml=RECIPE,
        environment={"kronpress": "0.1.0", "torch": "2.13.0", "device": "cpu, 2 threads, bfloat16"},
        steps=[StepTime("calibrate", 41.2), StepTime("prune", 7.4), StepTime("distill", 498), StepTime("evaluate", 63)],
        footprint_before=footprint(1.0),
        footprint_after=footprint(0.704),
        layers=errors(),
        quantized=[quantized()],
        training=training(),
        validation=[TrainingPoint(tokens=61_440 * i, loss=0.62 - 0.045 * i) for i in range(1, 5)],
        perplexity=[
            PerplexityRow("dense", protocol, text, 30.1, 1.0),
            PerplexityRow("pruned", protocol, text, 50.9, 1.69),
            PerplexityRow("distilled", protocol, text, 40.3, 1.34),
            PerplexityRow("dense", protocol, "LAMBADA", 41.7, 1.0),
            PerplexityRow("pruned", protocol, "LAMBADA", 77.0, 1.85),
            PerplexityRow("distilled", protocol, "LAMBADA", 58.2, 1.40),
        ],
        tasks=tasks(),
        speed=[
            SpeedRow("prefill, 512 tokens", 1843, 2396, 1.30, 1.26, 1.35),
            SpeedRow("decode, batch 1", 31.4, 39.2, 1.25, 1.17, 1.29),
        ],
        samples=[
            Sample(
                "The capital of France is", " Paris, a city on the Seine.", " Paris, the largest city of the country."
            ),
            Sample("def add(a, b):", "\n    return a + b", '\n    """Add."""\n    return a + b'),
        ],
        notes=["The embedding and the head are tied and were left alone.", "30 of 30 feed-forwards were pruned."],
    )


def empty() -> RunSummary:
    return RunSummary(title="Nothing yet", base_model="tiny", created="")
