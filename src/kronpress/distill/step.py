"""The distill step of a recipe."""

from __future__ import annotations

import math
import shutil
import time
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Int
from pydantic import Field, SerializeAsAny, field_validator
from torch import Tensor
from transformers import PrinterCallback, ProgressCallback, TrainingArguments

from kronpress.distill.logits import LogitDistillation
from kronpress.distill.loss import LOSSES, Loss
from kronpress.distill.progress import Progress
from kronpress.distill.trainer import DistillationTrainer, JsonLog, MarkComplete, Windows, last_complete, read_log
from kronpress.errors import KronpressError
from kronpress.families import is_causal
from kronpress.step import STEPS, Step, Workbench
from kronpress.validation import parse_named


@STEPS.register("distill")
class Distill(Step):
    """Train the student to answer like the teacher, on the recipe's training text.

    Attributes:
        tokens: training tokens; the text is read again, in another order, where it is shorter.
        window: tokens per training window.
        batch: windows per optimizer step.
        learning_rate: peak, reached after `warmup` of the steps and falling to zero along `schedule`.
        loss: what is minimized, by name or as a mapping with `name` and its fields.
        save_every: steps between checkpoints that an interrupted run goes on from.
        log_every: steps between lines of the log.
        report_to: trackers of `transformers.Trainer` (tensorboard, trackio, wandb …) beside our own log.
    """

    kind: ClassVar[str] = "distill"
    tokens: int = Field(ge=1)
    window: int = Field(default=512, ge=2)
    batch: int = Field(default=2, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    warmup: float = Field(default=0.05, ge=0, lt=1)
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    loss: SerializeAsAny[Loss] = LogitDistillation()
    save_every: int = Field(default=50, ge=1)
    log_every: int = Field(default=2, ge=1)
    report_to: tuple[str, ...] = ()

    @field_validator("loss", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Loss:
        loss: Loss = parse_named(value, LOSSES, key="loss", default="logits")
        return loss

    def check(self, bench: Workbench) -> None:
        """Check that the model predicts the next token, and that the text has a window."""
        if not is_causal(bench.student):
            raise KronpressError(
                f"distill trains causal language models, and {type(bench.student).__name__} is none; "
                "use a recipe without a distill step, such as halve-ffn-training-free"
            )
        bench.training_windows(size=self.window, tokens=self.window)

    def run(self, bench: Workbench) -> dict[str, Any]:
        """Train, going on from the last whole checkpoint in the step's folder."""
        started = time.perf_counter()
        self._check_vocabulary(bench)
        steps = math.ceil(self.tokens / (self.batch * self.window))
        log = bench.folder / "train.jsonl"
        trainer = self._trainer(bench, steps)
        trainer.add_callback(JsonLog(log, tokens_per_step=self.batch * self.window))
        bench.student.train()
        resume = last_complete(bench.folder / "trainer")
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        bench.student.eval()
        shutil.rmtree(bench.folder / "trainer", ignore_errors=True)
        lines = read_log(log)
        return {
            "tokens": steps * self.batch * self.window,
            "steps": steps,
            "seconds": time.perf_counter() - started,
            "tokens_per_second": lines[-1]["tokens_per_second"] if lines else None,
            "curve": [{"tokens": line["tokens"], "loss": line["loss"]} for line in lines],
        }

    def _check_vocabulary(self, bench: Workbench) -> None:
        ours, theirs = int(bench.student.config.vocab_size), int(bench.teacher.config.vocab_size)
        if ours != theirs:
            raise KronpressError(
                f"the student has {ours} words and the teacher {theirs}; distillation needs the same vocabulary"
            )

    def _trainer(self, bench: Workbench, steps: int) -> DistillationTrainer:
        windows = bench.training_windows(size=self.window)
        order = epochs_of(len(windows), count=steps * self.batch, seed=bench.seed)
        trainer = DistillationTrainer(
            teacher=bench.teacher,
            loss=self.loss,
            model=bench.student,
            args=self._arguments(bench, steps),
            train_dataset=Windows(windows[order]),
            callbacks=[MarkComplete(), Progress()],
        )
        for noisy in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(noisy)
        return trainer

    def _arguments(self, bench: Workbench, steps: int) -> TrainingArguments:
        return TrainingArguments(
            output_dir=str(bench.folder / "trainer"),
            per_device_train_batch_size=self.batch,
            max_steps=steps,
            learning_rate=self.learning_rate,
            lr_scheduler_type=self.schedule,
            warmup_steps=round(self.warmup * steps),
            weight_decay=self.weight_decay,
            adam_beta2=0.95,
            max_grad_norm=self.max_grad_norm,
            logging_steps=self.log_every,
            save_steps=self.save_every,
            save_total_limit=2,
            seed=bench.seed,
            data_seed=bench.seed,
            report_to=list(self.report_to) or "none",
            remove_unused_columns=False,
            dataloader_pin_memory=torch.cuda.is_available(),
            use_cpu=bench.student.device.type == "cpu",
        )


def epochs_of(windows: int, *, count: int, seed: int) -> Int[Tensor, " count"]:
    """Return `count` window indices: shuffled epochs over all windows, the last one cut short."""
    generator = torch.Generator().manual_seed(seed)
    passes = math.ceil(count / windows)
    return torch.cat([torch.randperm(windows, generator=generator) for _ in range(passes)])[:count]
