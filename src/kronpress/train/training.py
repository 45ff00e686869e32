"""Train a student: minimize an objective, going on from the last checkpoint after an interruption."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Dataset
from transformers import TrainerCallback, TrainingArguments, set_seed

from kronpress import processes
from kronpress.errors import KronpressError
from kronpress.imports import lazily
from kronpress.memory import peak_rss_bytes
from kronpress.records import TrainingPoint, TrainingRecord
from kronpress.train.checkpoints import newest_whole
from kronpress.train.dropout import dropping
from kronpress.train.log import JsonLog, read_log
from kronpress.train.objective import Objective
from kronpress.train.settings import TrainingSettings

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


def train(
    settings: TrainingSettings, objective: Objective, material: Material, *, folder: Path, seed: int
) -> TrainingRecord:
    """Minimize the objective and report on it; what lies in the folder is gone on from.

    All processes call it. The checkpoints, in `trainer` below that folder, are left for the caller to remove.
    """
    refuse_shards()
    started = time.perf_counter()
    log = JsonLog(folder / "train.jsonl", tokens_per_step=material.tokens_per_step)
    training = trainer.DistillationTrainer(
        model=objective,
        args=_arguments(settings, objective, material, folder=folder, seed=seed),
        train_dataset=material.data,
        eval_dataset=material.validation,
        data_collator=material.collate,
        callbacks=[log, *material.callbacks],
    )
    resume = processes.from_main(lambda: newest_whole(folder / "trainer"))
    if not processes.is_main():
        set_seed(seed + processes.rank())  # for other dropout than in the main process
    objective.student.train()
    try:
        with dropping(objective.student, settings.dropout):
            training.train(resume_from_checkpoint=str(resume) if resume else None)
    finally:
        objective.eval()
        objective.zero_grad(set_to_none=True)
    seconds = log.before + time.perf_counter() - started
    record = _report(material, read_log(log.path), seconds=seconds)
    return replace(record, devices=processes.count(), device=_name_of(objective.student.device))


def _name_of(device: torch.device) -> str:
    """Return what a report calls a device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} threads of a CPU"


def _report(material: Material, lines: Sequence[Mapping[str, Any]], *, seconds: float) -> TrainingRecord:
    """Return what a training came to, from the lines of its log."""
    trained = [line for line in lines if "loss" in line]
    validated = [line for line in lines if "validation_loss" in line]
    return TrainingRecord(
        tokens=round(material.steps * material.tokens_per_step),
        steps=material.steps,
        seconds=seconds,
        tokens_per_second=trained[-1]["tokens_per_second"] if trained else None,
        peak_rss_bytes=peak_rss_bytes(),
        curve=tuple(TrainingPoint(line["tokens"], line["loss"]) for line in trained),
        validation=tuple(TrainingPoint(line["tokens"], line["validation_loss"]) for line in validated),
        parts=trained[-1]["parts"] if trained else {},
    )


def _arguments(
    settings: TrainingSettings, objective: Objective, material: Material, *, folder: Path, seed: int
) -> TrainingArguments:
    micro, accumulated = settings.passes()
    measured: Any = material.validation if material.validation is not None else ()
    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"),
        per_device_train_batch_size=micro,
        per_device_eval_batch_size=math.gcd(micro, max(1, len(measured) // processes.count())),
        gradient_accumulation_steps=accumulated,
        max_steps=material.steps,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.schedule,
        warmup_steps=round(settings.warmup * material.steps),
        weight_decay=settings.weight_decay,
        adam_beta1=settings.betas[0],
        adam_beta2=settings.betas[1],
        adam_epsilon=settings.epsilon,
        optim="adamw_torch_fused",
        max_grad_norm=settings.max_grad_norm,
        logging_steps=settings.log_every,
        save_steps=math.ceil(settings.save_every / settings.log_every) * settings.log_every,
        eval_strategy="no" if material.validation is None else "steps",
        eval_steps=material.validate_every,
        prediction_loss_only=True,
        seed=seed,
        data_seed=seed,
        report_to=list(settings.report_to) or "none",
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        ddp_find_unused_parameters=not objective.logit_losses,
        use_cpu=objective.student.device.type == "cpu",
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # of several GPUs each belongs to a process of its own
    return arguments


def refuse_shards() -> None:
    """Refuse a training whose models would be cut among processes.

    Raises:
        KronpressError: the environment asks for one.
    """
    for name in ("FSDP", "DEEPSPEED"):
        if os.environ.get(f"ACCELERATE_USE_{name}", "false").lower() == "true":
            raise KronpressError(
                f"{name} is not supported: each process holds student and teacher whole (docs/distributed.md); "
                f"start with torchrun, or without ACCELERATE_USE_{name}"
            )
