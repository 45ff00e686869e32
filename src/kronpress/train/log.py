"""The log of a training: one JSON line after every few steps."""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from kronpress.checkpoint import files
from kronpress.errors import KronpressError
from kronpress.memory import peak_rss_bytes


class JsonLog(TrainerCallback):
    """Appends a line per log to a file.

    A line has step, tokens, loss and each of its `parts`, learning rate, norm of the gradient, tokens per second since
    training began or went on, wall seconds of all sittings, and the most memory that was held; or step, tokens and the
    loss on validation text.

    Attributes:
        before: wall seconds of the sittings before this one, up to the checkpoint that it goes on from.
    """

    def __init__(self, path: Path, *, tokens_per_step: float) -> None:
        self.path, self.tokens_per_step = path, tokens_per_step
        self.started, self.first, self.before = time.perf_counter(), 0, 0.0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Forget lines beyond the checkpoint that training goes on from."""
        self.started, self.first = time.perf_counter(), state.global_step
        kept = [line for line in read_log(self.path) if line["step"] <= state.global_step]
        self.before = max((line["seconds"] for line in kept if "seconds" in line), default=0.0)
        if not state.is_world_process_zero:
            return
        files.write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *, logs: Any = None, **_: Any
    ) -> None:
        """Write the line."""
        line: dict[str, Any] = {"step": state.global_step, "tokens": round(state.global_step * self.tokens_per_step)}
        if not state.is_world_process_zero or not logs:
            return
        if "eval_loss" in logs:
            line["validation_loss"] = float(logs["eval_loss"])
        elif "loss" in logs:
            seconds = time.perf_counter() - self.started
            line |= {
                "loss": float(logs["loss"]),
                "parts": {key.removeprefix("loss/"): value for key, value in logs.items() if key.startswith("loss/")},
                "learning_rate": logs.get("learning_rate"),
                "grad_norm": logs.get("grad_norm"),
                "tokens_per_second": round((state.global_step - self.first) * self.tokens_per_step / seconds, 1),
                "seconds": round(self.before + seconds, 2),
                "peak_rss_bytes": peak_rss_bytes(),
            }
        else:
            return
        with self.path.open("a") as stream:
            stream.write(json.dumps(line) + "\n")


def read_log(path: Path, *, numbers: Collection[str] = ()) -> list[dict[str, Any]]:
    """Read the lines of a JSON log; a last line cut short by a kill is left out.

    Args:
        numbers: what every line must have beside its step.

    Raises:
        KronpressError: another line is damaged.
    """
    *texts, rest = path.read_bytes().split(b"\n") if path.exists() else [b""]
    lines = []
    for number, text in enumerate([*texts, rest], start=1):
        line = _parsed(text)
        if line is not None and all(_is_number(line.get(name)) for name in ("step", *numbers)):
            lines.append(line)
        elif number <= len(texts):
            raise KronpressError(
                f"{path}, line {number} is damaged; restore the file, or remove {path.parent}, "
                "and the training that it tells of starts over"
            )
    return lines


def _parsed(text: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):  # neither UTF-8 nor JSON
        return None
    return line if isinstance(line, dict) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
