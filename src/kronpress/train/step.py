"""What every step that trains has in common."""

from __future__ import annotations

from kronpress.step import Needs, Step, Workbench
from kronpress.train.settings import TrainingFields, TrainingSettings
from kronpress.train.training import refuse_shards


class TrainingStep(TrainingFields, Step):
    """A step that trains with `transformers.Trainer`, and goes on from its last checkpoint after an interruption.

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

    @property
    def settings(self) -> TrainingSettings:
        """How it trains."""
        return TrainingSettings(**{name: getattr(self, name) for name in TrainingFields.model_fields})

    def needs(self) -> Needs:
        """Return that all processes train together, with checkpoints of student and optimizer on disk."""
        return Needs(copies=4, all_processes=True)

    def check(self, bench: Workbench) -> None:
        """Check that processes can share the batch, each with the whole model, and that the trackers exist."""
        self.settings.require_possible()
        refuse_shards()
