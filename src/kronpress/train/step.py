"""What every step that trains has in common."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch.utils.data import Dataset
from transformers import TrainerCallback, TrainingArguments, set_seed
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations

from kronpress import processes
from kronpress.errors import KronpressError, did_you_mean
from kronpress.imports import lazily
from kronpress.memory import peak_rss_bytes
from kronpress.step import Step, Workbench
from kronpress.train.checkpoints import newest_whole
from kronpress.train.dropout import dropping
from kronpress.train.log import JsonLog, read_log
from kronpress.train.objective import Objective

if TYPE_CHECKING:
    from kronpress.train import trainer
else:
    trainer = lazily("kronpress.train.trainer")  # which imports transformers' Trainer


@dataclass(frozen=True)
class Material:
    """What a training reads, and for how long.

    Attributes:
        data: examples in the order of the training.
        steps: of the optimizer.
        tokens_per_step: in the mean.
        validation: examples to measure the loss on, every `validate_every` steps.
        collate: makes a batch of examples; by default they are stacked.
        callbacks: called by the Trainer beside our own.
    """

    data: Dataset[Any]
    steps: int
    tokens_per_step: float
    validation: Dataset[Any] | None = None
    validate_every: int | None = None
    collate: Callable[[Sequence[Any]], dict[str, Any]] | None = None
    callbacks: tuple[TrainerCallback, ...] = ()


class TrainingStep(Step):
    """A step that trains with `transformers.Trainer`, and goes on from its last checkpoint after an interruption.

    Attributes:
        batch: windows (or examples) per optimizer step, over all processes.
        micro_batch: how many of them one forward pass of one process takes; all that it has by default.
        dropout: probability at all places where the student drops activations, or null for what its configuration says.
        learning_rate: peak, reached after `warmup` of the steps and following `schedule` from there, for AdamW.
        save_every: steps between checkpoints that an interrupted run goes on from, rounded up to lines of the log.
        log_every: steps between lines of the log.
        report_to: trackers of `transformers.Trainer` (tensorboard, trackio, wandb …) beside our own log.
    """

    in_all_processes: ClassVar[bool] = True
    betas: ClassVar[tuple[float, float]] = (0.9, 0.95)  # of AdamW
    batch: int = Field(default=2, ge=1)
    micro_batch: int | None = Field(default=None, ge=1)
    dropout: float | None = Field(default=None, ge=0, lt=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    warmup: float = Field(default=0.05, ge=0, lt=1)
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    save_every: int = Field(default=50, ge=1)
    log_every: int = Field(default=2, ge=1)
    report_to: tuple[str, ...] = ()

    def check(self, bench: Workbench) -> None:
        """Check that processes can share the batch, each with the whole model, and that the trackers exist."""
        self._share()
        _refuse_shards()
        for tracker in self.report_to:
            if tracker not in INTEGRATION_TO_CALLBACK:
                raise KronpressError(f"report_to: {did_you_mean(tracker, INTEGRATION_TO_CALLBACK)}")
            if tracker not in get_available_reporting_integrations():
                raise KronpressError(f"report_to: {tracker} is not installed; pip install {tracker}, or leave it out")

    def train(self, bench: Workbench, objective: Objective, material: Material) -> dict[str, Any]:
        """Minimize the objective and report on it; what lies in the step's folder is gone on from.

        All processes call it. The checkpoints, in `trainer` below that folder, are left for the caller to remove.
        """
        _refuse_shards()
        started = time.perf_counter()
        log = bench.folder / "train.jsonl"
        training = trainer.DistillationTrainer(
            model=objective,
            args=self._arguments(bench, objective, material),
            train_dataset=material.data,
            eval_dataset=material.validation,
            data_collator=material.collate,
            callbacks=[JsonLog(log, tokens_per_step=material.tokens_per_step), *material.callbacks],
        )
        resume = processes.from_main(lambda: newest_whole(bench.folder / "trainer"))
        if not processes.is_main():
            set_seed(bench.seed + processes.rank())  # for other dropout than in the main process
        objective.student.train()
        try:
            with dropping(objective.student, self.dropout):
                training.train(resume_from_checkpoint=str(resume) if resume else None)
        finally:
            objective.eval()
            objective.zero_grad(set_to_none=True)
        lines = read_log(log)
        trained = [line for line in lines if "loss" in line]
        validated = [line for line in lines if "validation_loss" in line]
        return {
            "tokens": round(material.steps * material.tokens_per_step),
            "steps": material.steps,
            "seconds": time.perf_counter() - started,
            "tokens_per_second": trained[-1]["tokens_per_second"] if trained else None,
            "peak_rss_bytes": peak_rss_bytes(),
            "curve": [{"tokens": line["tokens"], "loss": line["loss"]} for line in trained],
            "validation": [{"tokens": line["tokens"], "loss": line["validation_loss"]} for line in validated],
            "parts": trained[-1]["parts"] if trained else {},
        }

    def _arguments(self, bench: Workbench, objective: Objective, material: Material) -> TrainingArguments:
        micro, accumulated = self._share()
        measured: Any = material.validation if material.validation is not None else ()
        arguments = TrainingArguments(
            output_dir=str(bench.folder / "trainer"),
            per_device_train_batch_size=micro,
            per_device_eval_batch_size=math.gcd(micro, max(1, len(measured) // processes.count())),
            gradient_accumulation_steps=accumulated,
            max_steps=material.steps,
            learning_rate=self.learning_rate,
            lr_scheduler_type=self.schedule,
            warmup_steps=round(self.warmup * material.steps),
            weight_decay=self.weight_decay,
            adam_beta1=self.betas[0],
            adam_beta2=self.betas[1],
            optim="adamw_torch_fused",
            max_grad_norm=self.max_grad_norm,
            logging_steps=self.log_every,
            save_steps=math.ceil(self.save_every / self.log_every) * self.log_every,
            eval_strategy="no" if material.validation is None else "steps",
            eval_steps=material.validate_every,
            prediction_loss_only=True,
            seed=bench.seed,
            data_seed=bench.seed,
            report_to=list(self.report_to) or "none",
            remove_unused_columns=False,
            dataloader_pin_memory=torch.cuda.is_available(),
            ddp_find_unused_parameters=not objective.logit_losses,
            use_cpu=bench.student.device.type == "cpu",
        )
        arguments._n_gpu = min(arguments.n_gpu, 1)  # of several GPUs each belongs to a process of its own
        return arguments

    def _share(self) -> tuple[int, int]:
        """Return the windows of one forward pass of one process, and the passes per optimizer step."""
        mine, rest = divmod(self.batch, processes.count())
        if rest:
            raise KronpressError(
                f"a batch of {self.batch} does not divide among {processes.count()} processes; choose a multiple"
            )
        micro = min(self.micro_batch or mine, mine)
        if mine % micro:
            raise KronpressError(
                f"micro_batch {micro} does not divide the {mine} windows of a process; choose a divisor"
            )
        return micro, mine // micro


def _refuse_shards() -> None:
    for name in ("FSDP", "DEEPSPEED"):
        if os.environ.get(f"ACCELERATE_USE_{name}", "false").lower() == "true":
            raise KronpressError(
                f"{name} is not supported: each process holds student and teacher whole (docs/distributed.md); "
                f"start with torchrun, or without ACCELERATE_USE_{name}"
            )
