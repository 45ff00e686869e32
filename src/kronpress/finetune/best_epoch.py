"""Keep the weights that do best on the dev set, or on what selects in its place."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
from tqdm import tqdm
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from kronpress import processes
from kronpress.checkpoint import files
from kronpress.tasks import DivergedError
from kronpress.train.log import read_log

LOG = "dev.jsonl"


class BestEpoch(TrainerCallback):
    """Measures after every epoch and at the end, logs it, and keeps the weights of the best measurement.

    A training that has diverged ends at its next measurement.

    The file of the weights is named after their step, so that a training which goes on from an earlier one finds the
    best of those before it.

    Args:
        folder: for the log and the weights.
        student: what is trained.
        measure: returns the score on the dev set, the higher the better, and what else to log.
        every: steps of an epoch, not always whole.
        select: returns the score on examples that are held out of the training set, by which the best is chosen; by
            default it is chosen by the score on the dev set.
    """

    def __init__(
        self,
        folder: Path,
        student: PreTrainedModel,
        *,
        measure: Callable[[], tuple[float, Mapping[str, float]]],
        every: float,
        select: Callable[[], float] | None = None,
    ) -> None:
        self.folder, self.student, self.measure, self.every = folder, student, measure, every
        self.select = select

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Forget measurements beyond the checkpoint that training goes on from."""
        if state.is_world_process_zero:
            kept = self._lines(until=state.global_step)
            files.write_text(self.folder / LOG, "".join(json.dumps(line) + "\n" for line in kept))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Remove weights that no checkpoint still there would go on with."""
        if not state.is_world_process_zero:
            return
        names = [path.name.partition("-")[2] for path in (self.folder / "trainer").glob("checkpoint-*")]
        steps = [state.global_step, *(int(name) for name in names if name.isdigit())]
        needed = [
            self._weights(best) for best in (_best(self._lines(until=step)) for step in steps) if best is not None
        ]
        for path in self.folder.glob("best-*.safetensors"):
            if path not in needed:
                path.unlink()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Measure where an epoch has ended."""
        step = state.global_step
        ends = int(step / self.every + 1e-9) > int((step - 1) / self.every + 1e-9)
        if not ends and step != state.max_steps:
            return
        try:
            score, scores = self.measure()
            selecting = {} if self.select is None else {"held_out": self.select()}
        except DivergedError as error:
            control.should_training_stop = True
            if state.is_world_process_zero:
                tqdm.write(f"stopped after step {step}: {error}")
            return
        if not state.is_world_process_zero:
            return
        line = {"step": step, "epoch": round(step / self.every, 2), "score": score, "scores": dict(scores)}
        line |= selecting
        if _best([*self._lines(), line]) == step:
            self._keep(step)
        with (self.folder / LOG).open("a") as stream:
            stream.write(json.dumps(line) + "\n")
        shown = ", ".join(f"{name} {value:.2f}" for name, value in scores.items())
        shown += "".join(f", held out {value:.2f}" for value in selecting.values())
        tqdm.write(f"epoch {line['epoch']:g}: dev {shown}")

    def take_best(self) -> dict[str, Any]:
        """Give the student its best weights; return the line of the log that tells of them. All processes call it.

        Where another score than that on the dev set chose them, `best_on_dev` tells the best of that.

        Raises:
            DivergedError: there are none.
        """
        with processes.together():
            pass  # the main one has written them
        lines = self._lines()
        best = _best(lines)
        if best is None:
            raise DivergedError("the model diverged before its first measurement; train it with a lower learning rate")
        safetensors.torch.load_model(self.student, self._weights(best))
        line = next(line for line in lines if line["step"] == best)
        return line if self.select is None else line | {"best_on_dev": max(line["score"] for line in lines)}

    def _lines(self, *, until: float = math.inf) -> list[dict[str, Any]]:
        numbers = ["score"] if self.select is None else ["score", "held_out"]
        return [line for line in read_log(self.folder / LOG, numbers=numbers) if line["step"] <= until]

    def _weights(self, step: int) -> Path:
        return self.folder / f"best-{step}.safetensors"

    def _keep(self, step: int) -> None:
        files.write_tensors(self._weights(step), self.student.state_dict())


def _best(lines: Sequence[Mapping[str, Any]]) -> int | None:
    """Return the step of the best measurement, the first of equal ones."""
    ranked = [(line.get("held_out", line["score"]), -line["step"]) for line in lines]
    return int(-max(ranked)[1]) if ranked else None
