"""The progress bar of a training."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from kronpress.bars import Bar


class Progress(TrainerCallback):
    """One bar with the loss beside it, in place of the Trainer's printed dictionaries."""

    def __init__(self) -> None:
        self.bar: Bar | None = None
        self.validation: Bar | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Open the bar where training goes on."""
        if state.is_world_process_zero:
            self.bar = Bar(total=state.max_steps, initial=state.global_step, desc="train", unit="step")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Move on by a step."""
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *, logs: Any = None, **_: Any
    ) -> None:
        """Show the loss."""
        if self.bar is not None and logs and "loss" in logs:
            self.bar.set_postfix(loss=f"{float(logs['loss']):.3f}")

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Move on by a batch of the validation text."""
        if state.is_world_process_zero:
            if self.validation is None:
                batches = len(kwargs["eval_dataloader"])
                self.validation = Bar(total=batches, desc="validation", unit="batch", leave=False)
            self.validation.update()

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Close the bar of the validation."""
        if self.validation is not None:
            self.validation.close()
            self.validation = None

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()
