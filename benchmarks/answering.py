"""Time fine-tuned models on the sentences of a task, by turns, alone and in batches:

    python -m benchmarks.answering --task mrpc --data DIR TEACHER STUDENT …

Texts per second in float32, sorted by length, tokenized before; ratios to the first model are medians over the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedModel

from kronpress.checkpoint import load_with_tokenizer
from kronpress.tasks import TASKS

BATCHES = (1, 32)
TEXTS = 384


def batches_of(tokenizer: Any, texts: Sequence[tuple[str, ...]], size: int) -> list[dict[str, torch.Tensor]]:
    """Tokenize texts, or pairs of them, in batches padded to their longest."""
    parts = [texts[start : start + size] for start in range(0, len(texts), size)]
    return [tokenizer(*map(list, zip(*part, strict=True)), padding=True, return_tensors="pt") for part in parts]


@torch.inference_mode()
def speed(model: PreTrainedModel, batches: Sequence[dict[str, torch.Tensor]]) -> float:
    """Return texts per second."""
    started = time.perf_counter()
    for batch in batches:
        model(**batch)
    return sum(len(batch["input_ids"]) for batch in batches) / (time.perf_counter() - started)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("models", nargs="+")
    given = parser.parse_args()
    task = TASKS[given.task]
    examples = task.read(task.find(given.data), "dev")[:TEXTS]
    texts = sorted(
        (tuple(filter(None, (example.first, example.second))) for example in examples), key=lambda text: len(str(text))
    )
    models = {}
    for name in given.models:
        model, tokenizer = load_with_tokenizer(name)
        models[name] = (model.float().eval(), [batches_of(tokenizer, texts, size) for size in BATCHES])
    rounds = [
        {name: [speed(model, batches) for batches in sizes] for name, (model, sizes) in models.items()}
        for _ in range(1 + given.rounds)
    ][1:]
    table = Table("model", *(f"in batches of {size}" for size in BATCHES), title=f"texts/s, {given.task}")
    for name in models:
        cells = []
        for column in range(len(BATCHES)):
            middle = statistics.median(turn[name][column] for turn in rounds)
            ratios = [turn[name][column] / turn[given.models[0]][column] for turn in rounds]
            cells.append(f"{middle:.4g}, {statistics.median(ratios):.2f} × ({min(ratios):.2f}–{max(ratios):.2f})")
        table.add_row(name, *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
