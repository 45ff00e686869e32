"""Mutated text and task data: refused with a sentence that names the place, or read without losing a row."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from kronpress.data import read_text
from kronpress.evaluate.lambada import read_lambada
from kronpress.tasks import TASKS
from tests.fuzz.mutations import mutated_bytes, mutated_value
from tests.fuzz.outcome import outcome, run_trials

FEW = [pytest.param(200, id="few"), pytest.param(2000, id="many", marks=pytest.mark.slow)]

SENTENCES = "sentence\tlabel\n" + "".join(f"the fox number {i} runs\t{i % 2}\n" for i in range(12))
PAIRS = "index\tsentence1\tsentence2\tlabel\n" + "".join(f"{i}\tone {i}\ttwo\tentailment\n" for i in range(12))
SCORES = "index\tsentence1\tsentence2\tscore\n" + "".join(f"{i}\tone {i}\ttwo\t{i / 4}\n" for i in range(12))
OBJECTS = [{"sentence": f"the fox {i}", "label": i % 2, "idx": i} for i in range(12)]
TEXTS = [{"text": f"The quick brown fox number {i} jumps over a dog."} for i in range(12)]
SQUAD: dict[str, Any] = {
    "version": "1.1",
    "data": [
        {
            "title": "foxes",
            "paragraphs": [
                {
                    "context": f"The fox number {i} sleeps in its den.",
                    "qas": [{"id": f"q{i}", "question": "Who?", "answers": [{"text": "The fox", "answer_start": 0}]}],
                }
                for i in range(4)
            ],
        }
    ],
}

Reader = Callable[[str], Any]
SOURCES: dict[str, tuple[str, Any, Reader]] = {
    "text.txt": ("text", "A line of text.\nAnother line, é.\n\nA second document.\n" * 5, read_text),
    "text.md": ("text", "# Title\n\nA line of *text*.\n" * 5, read_text),
    "text.jsonl": ("lines", TEXTS, read_text),
    "passages.jsonl": ("lines", TEXTS, read_lambada),
    "sst-2.tsv": ("text", SENTENCES, lambda path: TASKS["sst-2"].read(path, "dev")),
    "rte.tsv": ("text", PAIRS, lambda path: TASKS["rte"].read(path, "dev")),
    "sts-b.tsv": ("text", SCORES, lambda path: TASKS["sts-b"].read(path, "dev")),
    "sst-2.jsonl": ("lines", OBJECTS, lambda path: TASKS["sst-2"].read(path, "dev")),
    "dev.json": ("value", SQUAD, lambda path: TASKS["squad"].read(path, "dev")),
}


def content(kind: str, value: Any, random: Random) -> bytes:
    """Return the file of a source with a change in its values or its bytes."""
    structured = kind != "text" and random.random() < 0.6
    if kind == "value":
        text = json.dumps(mutated_value(value, random) if structured else value)
    elif kind == "lines":
        changed = mutated_value(value, random) if structured else value
        text = "".join(json.dumps(line) + "\n" for line in (changed if isinstance(changed, list) else [changed]))
    else:
        text = value
    return text.encode("utf-8", "surrogatepass") if structured else mutated_bytes(text.encode(), random)


def rows_in(path: Path) -> int | None:
    """Count the rows that a reader must return, where lines tell."""
    lines = [line for line in path.read_bytes().split(b"\n") if line.strip()]
    return {".tsv": len(lines) - 1, ".jsonl": len(lines)}.get(path.suffix)


@pytest.mark.parametrize("trials", FEW)
def test_mutated_data_are_refused_or_read_in_full(trials: int, tmp_path: Path) -> None:
    names = list(SOURCES)

    def trial(number: int) -> None:
        random = Random(number)
        name = names[number % len(names)]
        kind, value, read = SOURCES[name]
        path = tmp_path / name
        path.write_bytes(content(kind, value, random))
        label = f"{name}, trial {number}"
        answer = outcome(lambda: read(str(path)), label=label)
        if answer.accepted and isinstance(answer.value, list) and rows_in(path) is not None:
            assert len(answer.value) == rows_in(path), f"{label}: rows are lost"

    run_trials(trials, trial)
