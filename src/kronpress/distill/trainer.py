"""A `transformers.Trainer` that learns from a teacher."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from typing_extensions import override

from kronpress.distill.loss import Loss
from kronpress.precision import mixed_precision

COMPLETE = "kronpress_complete"


class Windows(Dataset[dict[str, Tensor]]):
    """Token windows in the order they are trained on, (windows, tokens)."""

    def __init__(self, ids: Int[Tensor, "windows tokens"]) -> None:
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"input_ids": self.ids[index]}


class DistillationTrainer(Trainer):
    """Trains the student on the loss against a teacher, which stays in evaluation mode without gradients.

    Matrix products run in bfloat16 where the device is faster at it; weights, optimizer and loss stay fp32.
    """

    def __init__(self, *, teacher: PreTrainedModel, loss: Loss, **options: Any) -> None:
        super().__init__(**options)
        self.teacher = teacher.eval().requires_grad_(False).to(self.args.device)
        self.loss = loss
        self.model_accepts_loss_kwargs = False

    @override
    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor | Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """Return the loss of a batch; the models' own losses are never computed."""
        ids = inputs["input_ids"]
        with mixed_precision(ids.device):
            with torch.no_grad():
                wanted = self.teacher(input_ids=ids, use_cache=False).logits
            outputs = model(input_ids=ids, use_cache=False)
        loss = self.loss(outputs.logits, wanted, ids=ids)
        return (loss, outputs) if return_outputs else loss

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        chosen: Any = train_dataset if train_dataset is not None else self.train_dataset
        return SequentialSampler(chosen)


class JsonLog(TrainerCallback):
    """Appends one JSON line per log to a file: step, tokens, loss, learning rate, tokens per second."""

    def __init__(self, path: Path, *, tokens_per_step: int) -> None:
        self.path, self.tokens_per_step = path, tokens_per_step
        self.started, self.first = time.perf_counter(), 0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Forget lines beyond the checkpoint that training goes on from."""
        self.started, self.first = time.perf_counter(), state.global_step
        kept = [line for line in read_log(self.path) if line["step"] <= state.global_step]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("".join(json.dumps(line) + "\n" for line in kept))

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *, logs: Any = None, **_: Any
    ) -> None:
        """Write the line."""
        if not logs or "loss" not in logs:
            return
        seconds = time.perf_counter() - self.started
        line = {
            "step": state.global_step,
            "tokens": state.global_step * self.tokens_per_step,
            "loss": float(logs["loss"]),
            "learning_rate": logs.get("learning_rate"),
            "grad_norm": logs.get("grad_norm"),
            "tokens_per_second": round((state.global_step - self.first) * self.tokens_per_step / seconds, 1),
        }
        with self.path.open("a") as stream:
            stream.write(json.dumps(line) + "\n")


class MarkComplete(TrainerCallback):
    """Marks a checkpoint as whole once it is written, so that one cut short is never resumed from."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Leave the mark."""
        (Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / COMPLETE).touch()


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a JSON log; a last line cut short by a kill is left out."""
    lines = []
    for text in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def last_complete(folder: Path) -> Path | None:
    """Return the newest whole checkpoint of a training folder."""
    found = [path.parent for path in folder.glob(f"checkpoint-*/{COMPLETE}")]
    return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
