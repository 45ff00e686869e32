"""Keep the weights that do best on the dev set."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from tqdm import tqdm
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from kronpress import processes
from kronpress.checkpoint import files
from kronpress.distill.log import read_log

LOG, WEIGHTS = "dev.jsonl", "best.safetensors"


class Selection(TrainerCallback):
    """Measures after every epoch and at the end, logs it, and keeps the weights of the best measurement.

    What is measured after a step depends on the steps before alone, so that a training that is interrupted and goes on
    keeps the same weights as one that is not.

    Args:
        folder: for the log and the weights.
        student: what is trained.
        measure: returns the score, the higher the better, and what else to log.
        every: steps of an epoch, not always whole.
    """

    def __init__(
        self,
        folder: Path,
        student: PreTrainedModel,
        *,
        measure: Callable[[], tuple[float, Mapping[str, float]]],
        every: float,
    ) -> None:
        self.folder, self.student, self.measure, self.every = folder, student, measure, every

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Forget measurements beyond the checkpoint that training goes on from."""
        if state.is_world_process_zero:
            kept = [line for line in read_log(self.folder / LOG) if line["step"] <= state.global_step]
            files.write_text(self.folder / LOG, "".join(json.dumps(line) + "\n" for line in kept))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Measure where an epoch has ended."""
        step = state.global_step
        ends = int(step / self.every + 1e-9) > int((step - 1) / self.every + 1e-9)
        if not ends and step != state.max_steps:
            return
        score, scores = self.measure()
        if not state.is_world_process_zero:
            return
        if score > max((line["score"] for line in read_log(self.folder / LOG)), default=float("-inf")):
            self._keep()
        line = {"step": step, "epoch": round(step / self.every, 2), "score": score, "scores": dict(scores)}
        with (self.folder / LOG).open("a") as stream:
            stream.write(json.dumps(line) + "\n")
        shown = ", ".join(f"{name} {value:.2f}" for name, value in scores.items())
        tqdm.write(f"epoch {line['epoch']:g}: dev {shown}")

    def _keep(self) -> None:
        partial = self.folder / f".{WEIGHTS}.partial"
        safetensors.torch.save_model(self.student, str(partial))
        os.replace(partial, self.folder / WEIGHTS)

    def take_best(self) -> dict[str, Any]:
        """Give the student its best weights; return the line of the log that tells of them. All processes call it."""
        with processes.together():
            pass  # the main one has written them
        safetensors.torch.load_model(self.student, self.folder / WEIGHTS)
        lines = read_log(self.folder / LOG)
        return dict(max(lines, key=lambda line: (line["score"], -line["step"])))
