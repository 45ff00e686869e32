"""How a model is trained: batches, the optimizer and its schedule, the log."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations

from kronpress import processes
from kronpress.errors import KronpressError, did_you_mean
from kronpress.validation import Checked

Beta = Annotated[float, Field(ge=0, lt=1)]


class TrainingFields(Checked):
    """What a recipe says of a training.

    Attributes:
        batch: windows (or examples) per optimizer step, over all processes.
        micro_batch: how many of them one forward pass of one process takes; all that it has by default.
        dropout: probability at all places where the student drops activations, or null for what its configuration says.
        learning_rate: peak, reached after `warmup` of the steps and following `schedule` from there, for AdamW.
        betas: of AdamW: how much of the mean gradient and of its mean square stays from step to step.
        epsilon: of AdamW, added to the root of that mean square.
        save_every: steps between checkpoints that an interrupted run goes on from, rounded up to lines of the log.
        log_every: steps between lines of the log.
        report_to: trackers of `transformers.Trainer` (tensorboard, trackio, wandb …) beside our own log.
    """

    batch: int = Field(default=2, ge=1)
    micro_batch: int | None = Field(default=None, ge=1)
    dropout: float | None = Field(default=None, ge=0, lt=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    warmup: float = Field(default=0.05, ge=0, lt=1)
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    weight_decay: float = Field(default=0.0, ge=0)
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    epsilon: float = Field(default=1e-8, gt=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    save_every: int = Field(default=50, ge=1)
    log_every: int = Field(default=2, ge=1)
    report_to: tuple[str, ...] = ()


class TrainingSettings(TrainingFields):
    """What a recipe says of a training, as the Trainer needs it."""

    def require_possible(self) -> None:
        """Check that processes can share the batch, and that the trackers exist.

        Raises:
            KronpressError: it is not so.
        """
        self.passes()
        for tracker in self.report_to:
            if tracker not in INTEGRATION_TO_CALLBACK:
                raise KronpressError(f"report_to: {did_you_mean(tracker, INTEGRATION_TO_CALLBACK)}")
            if tracker not in get_available_reporting_integrations():
                raise KronpressError(f"report_to: {tracker} is not installed; pip install {tracker}, or leave it out")

    def passes(self) -> tuple[int, int]:
        """Return the windows of one forward pass of one process, and the passes per optimizer step.

        Raises:
            KronpressError: the batch does not divide so.
        """
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
