"""A `transformers.Trainer` for a student, its teacher and the losses between them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor
from torch.utils.data import Sampler, SequentialSampler
from transformers import PrinterCallback, ProgressCallback, Trainer
from typing_extensions import override

from kronpress import processes
from kronpress.checkpoint import files
from kronpress.quantizers import TakeImportance, learned_names, learning
from kronpress.train.checkpoints import saving
from kronpress.train.objective import Objective
from kronpress.train.progress import Progress

_WEIGHTS = "model.safetensors"


class DistillationTrainer(Trainer):
    """Minimizes an `Objective` on a data set that is already in the order of the training."""

    objective: Objective

    def __init__(self, *, model: Objective, **options: Any) -> None:
        super().__init__(model=model, **options)
        self.model_accepts_loss_kwargs = False
        for noisy in (PrinterCallback, ProgressCallback):
            self.remove_callback(noisy)
        self.add_callback(Progress())
        if any("importance" in part.learned for _, part in learning(model)):
            self.add_callback(TakeImportance())
        self.objective = model

    @override
    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the parts of the loss to what is logged."""
        if "loss" in logs:
            logs |= {f"loss/{name}": value for name, value in self._parts().items()}
        super().log(logs, start_time)

    def _parts(self) -> dict[str, float]:
        """Return the mean of each loss since the last line of the log, over all processes."""
        mine = self.objective.take_parts()
        if processes.count() == 1:
            return mine
        means: Any = self.accelerator.reduce(torch.tensor(list(mine.values()), device=self.args.device), "mean")
        return dict(zip(mine, means.tolist(), strict=True))

    @override
    def evaluate(self, *arguments: Any, **options: Any) -> dict[str, float]:
        """Measure the loss on the validation text, and leave the parts of the training loss as they are."""
        kept = self.objective.parts_so_far
        with torch.random.fork_rng():  # losses may draw, and training must not depend on how often this is measured
            result: dict[str, float] = super().evaluate(*arguments, **options)
        self.objective.parts_so_far = kept
        return result

    @override
    def get_decay_parameter_names(self, model: Any) -> list[str]:
        """Leave out the scales and factors that quantizers learn, beside norms and biases."""
        learned = set(learned_names(model))
        return [name for name in super().get_decay_parameter_names(model) if name not in learned]

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        chosen: Any = train_dataset if train_dataset is not None else self.train_dataset
        return SequentialSampler(chosen)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        size = sum(weight.nbytes for weight in self.objective.parameters())
        trained = sum(weight.nbytes for weight in self.objective.parameters() if weight.requires_grad)
        folder = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
        kept = sum(buffer.nbytes for buffer in self.objective.projections.buffers())  # by losses, from batch to batch
        with saving(folder, needed=size + 2 * trained + kept):  # the weights, and the two moments of AdamW
            super()._save_checkpoint(model, trial)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        safetensors.torch.load_model(self.objective, Path(resume_from_checkpoint) / _WEIGHTS)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """Write weights alone, shared ones once, and no pickle; of several processes the main one writes."""
        if not self.args.should_save:
            return
        folder = Path(output_dir or str(self.args.output_dir))
        os.makedirs(folder, exist_ok=True)
        files.write_tensors(folder / _WEIGHTS, state_dict or self.objective.state_dict())
